"""The tools that show the promises, on few trials."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent


@pytest.mark.slow  # tests/study/test_command.py kills a study in the quick tests
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_runs_end_like_one_that_ran_through():
    command = [sys.executable, TOOLS / "kill_and_resume.py", "--trials", "2", "--seed", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("2 of 2 identical\n")
