"""What mkdocs does not do by itself: pages that are files of the repository's root, and notebooks."""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SAME = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE")
PAGES = {"README.md": "index.md"} | {name: name for name in SAME}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the root that the site shows, and a page for each notebook."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text("utf-8")))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page = notebook.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, page, content=_markdown(notebook)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links from the root to docs/, back, and to notebooks to the site's pages."""

    def moved(link: re.Match[str]) -> str:
        path = posixpath.normpath(link[1].removeprefix("docs/").removeprefix("../"))
        return "](" + PAGES.get(path, re.sub(r"ipynb$", "md", path))

    return re.sub(r"\]\(((?:docs/|\.\./)[^)#\s]+|[^)#:\s]+\.ipynb)", moved, markdown)


def _markdown(notebook: File) -> str:
    parts = []
    for cell in json.loads(notebook.content_string)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(f"![the cell's figure](data:image/png;base64,{data['image/png'].strip()})")
            else:
                text = "".join(output.get("text", data.get("text/plain", "")))
                parts.append(f"```text\n{text.rstrip()}\n```")
    parts.append(f'<a href="{posixpath.basename(notebook.src_uri)}" download>This page as a notebook</a>')
    return "\n\n".join(parts)
