"""Rooms import from lower floors only, in no circle, and name no class of a higher room in a string."""

import ast
import re
from pathlib import Path

import pytest

import vitlocal

PACKAGE = Path(vitlocal.__file__).parent
FLOORS = [
    {"errors", "files", "hardware", "internals", "config_files", "earlier", "processes"},
    {"geometry"},
    {"data", "models", "protocol"},
    {"observing"},
    {"heads", "activations"},
    {"checkpoints", "runs", "tasks"},
    {"compress", "inspection"},
    {"study"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def named(source: str) -> set[str]:
    """The modules of vitlocal that a source imports or names in a string that is no docstring."""
    tree = ast.parse(source)
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
    } | {
        after.value  # what documents an attribute
        for node in ast.walk(tree)
        for after in ast.iter_child_nodes(node)
        if isinstance(after, ast.Expr)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            names |= set(re.findall(r"\bvitlocal(?:\.\w+)+", node.value))
    return {name for name in names if name.startswith("vitlocal.")}


def rooms_below() -> dict[str, set[str]]:
    """What each room imports or names."""
    below: dict[str, set[str]] = {room: set() for room in FLOOR}
    for path in PACKAGE.rglob("*.py"):
        room = room_of(path)
        if room != "__init__":  # the public names, imported lazily
            below[room] |= {name.split(".")[1] for name in named(path.read_text())} & FLOOR.keys() - {room}
    return below


def test_every_room_has_a_floor():
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms == {room for room in FLOOR if (PACKAGE / room).exists() or (PACKAGE / f"{room}.py").exists()}


def test_no_import_goes_up():
    up = {
        f"{room} -> {other}"
        for room, others in rooms_below().items()
        for other in others
        if FLOOR[other] > FLOOR[room]
    }
    assert not up


def test_no_import_goes_in_a_circle():
    left = rooms_below()
    while free := [room for room, others in left.items() if not others & left.keys()]:
        for room in free:
            del left[room]
    assert not left


@pytest.mark.parametrize(
    "source",
    [
        "from vitlocal.study import plan",
        "from vitlocal import study",
        "import vitlocal.study.plan",
        "def late():\n    from vitlocal.study import plan",
        'path = "vitlocal.study.plan.Cell"',
        'path = "vitlocal.study:study"',
    ],
)
def test_an_import_is_seen_however_it_is_written(source):
    assert {name.split(".")[1] for name in named(source)} == {"study"}


def test_a_docstring_may_say_who_calls():
    assert not named('"""See :func:`vitlocal.study.plan.cells`."""\nx = 1\n"""As vitlocal.study has it."""')
