"""What the pages tell a reader to type is understood by the command line, and what they count is so."""

import re
import shlex
from pathlib import Path

import pytest

from vitlocal.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def fit_commands(page):
    lines = "\n".join(blocks(page, "sh")).splitlines()
    found = [
        shlex.split(line.split(" -m vitlocal fit ")[1], comments=True)
        for line in lines
        if " -m vitlocal fit " in line
    ]
    # A shell's variable has no value here, and a checkpoint no run.
    return [
        words for words in found if not any("$" in word or word.startswith("--ckpt_path") for word in words)
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if fit_commands(page)], ids=lambda page: page.name)
def test_every_fit_of_a_page_is_understood(page, capsys):
    for words in fit_commands(page):
        with pytest.raises(SystemExit) as end:
            main(["fit", *words, "--print_config"])
        assert not end.value.code, capsys.readouterr().err


ALONE = [block for page in PAGES for block in blocks(page, "python") if "open_run(" not in block]


@pytest.mark.parametrize("block", ALONE, ids=range(len(ALONE)))
def test_what_needs_no_run_is_executed(block):
    exec(block, {})


def test_the_files_that_a_page_names_are_there():
    pattern = r"(?:tests|benchmarks|configs|docs|vitlocal)/[\w/]+\.\w+"
    for page in [*PAGES, *ROOT.glob("*.md")]:
        missing = [path for path in re.findall(pattern, page.read_text()) if not (ROOT / path).exists()]
        assert not missing, page


def test_the_values_of_uniform_attention_are_those_that_are_printed(capsys):
    (block,) = blocks(ROOT / "docs" / "numbers.md", "python")
    exec(block, {})
    assert (
        capsys.readouterr().out.split()
        == re.findall(r"# (0\.\d+)$", block, re.MULTILINE)
        == ["0.418", "0.418", "0.101"]
    )
