"""The notebook runs from its first cell to its last, and prints what is in it.

``python tests/docs/test_notebook.py`` runs it and keeps what it prints now.
"""

import re
import tempfile
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


def executed(folder):
    """The notebook with the outputs of a run in ``folder``."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it was run
        if cell.cell_type == "code":  # other libraries' warnings differ from release to release
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def printed(notebook):
    """The words and the numbers that cells print; figures differ in pixels from machine to machine."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    parts = re.split(r"(\d+\.\d+)", "".join(output.get("text", "") for output in outputs))
    return parts[::2], [float(number) for number in parts[1::2]]


def test_the_notebook_prints_what_is_in_it(tmp_path):
    words, numbers = printed(nbformat.read(NOTEBOOK, as_version=4))
    now_words, now_numbers = printed(executed(tmp_path))
    assert now_words == words and len(numbers) > 10
    assert now_numbers == pytest.approx(numbers, abs=0.02)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(executed(folder), NOTEBOOK)
