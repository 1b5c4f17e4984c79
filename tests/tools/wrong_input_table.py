"""Prints every wrong input of ``tests/wrong_inputs.py`` with its exit code and what is said of it.

python tests/tools/wrong_input_table.py
"""

import contextlib
import io
import os
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.folders import chdir
from tests.wrong_inputs import WRONG_INPUTS, WrongInput
from vitlocal.cli import main


def refusal(wrong: WrongInput, folder: Path) -> tuple[int, str]:
    """Exit code and words; the working folder has to be ``folder``."""
    words = wrong.make(folder)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), wrong.fault():
        try:
            main(words)
        except SystemExit as left:
            lines = [line for line in said.getvalue().splitlines() if line.startswith("vitlocal: error: ")]
            return int(left.code or 0), "\n".join(lines).replace("vitlocal: error: ", "")
    return 0, "accepted"


def table() -> int:
    """Print it; gives how many were not refused."""
    accepted = 0
    for wrong in WRONG_INPUTS:
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            code, said = refusal(wrong, Path(folder))
        accepted += code == 0
        print(f"{wrong.what:32} {code}  {said.replace(folder + os.sep, '')}", flush=True)
    print(f"{len(WRONG_INPUTS)} wrong inputs, {len(WRONG_INPUTS) - accepted} refused with a sentence")
    return accepted


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(1 if table() else 0)
