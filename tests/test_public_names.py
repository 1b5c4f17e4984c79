"""What ``from vitlocal import NAME`` gives, and what it costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vitlocal

SOURCE = Path(vitlocal.__file__)


@pytest.mark.parametrize("name", vitlocal.__all__)
def test_every_public_name_is_there(name):
    value = getattr(vitlocal, name)
    assert value.__name__ == name
    assert value.__doc__
    assert name in dir(vitlocal)


def test_type_checkers_see_the_same_names():
    block, _ = (each for each in ast.parse(SOURCE.read_text()).body if isinstance(each, ast.If))
    seen = {
        (alias.name, line.module) for line in block.body for alias in line.names if alias.name == alias.asname
    }
    assert seen == {(name, f"vitlocal.{room}") for name, room in vitlocal.ROOMS.items()}
    assert SOURCE.with_name("py.typed").exists()


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="'vitlocal' has no attribute 'CutMixx'"):
        vitlocal.CutMixx  # noqa: B018


def test_importing_waits_for_nothing():
    heavy = "{'torch', 'lightning', 'numpy', 'pandas', 'matplotlib', 'vitlocal.heads'}"
    code = f"import sys, vitlocal; sys.exit(str({heavy} & sys.modules.keys() or ''))"
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert done.stderr.strip() == ""
