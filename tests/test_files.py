"""Files are whole or not there, and a table holds each epoch once."""

import csv
import os

import pytest

from vitlocal.files import EpochTable, atomic_path, remove_leftovers


def test_atomic_path_replaces_only_at_the_end(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_path_keeps_the_old_file_on_error(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("ha")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_holds_each_epoch_once_also_after_going_back(tmp_path):
    for epoch, value in ((0, "a"), (1, "b"), (2, "c"), (1, "d")):
        EpochTable(tmp_path / "t.csv", ("epoch", "value")).write(epoch, [{"value": value}] * 2)
    with (tmp_path / "t.csv").open() as file:
        rows = [(row["epoch"], row["value"]) for row in csv.DictReader(file)]
    assert rows == [("0", "a")] * 2 + [("1", "d")] * 2


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path):
    others = {"heads.csv", ".hidden", ".settings.tmp", "a.tmp.ckpt"}
    for name in others:
        (tmp_path / name).touch()
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "deep" / "last.ckpt") as temporary:
        left = temporary.with_name(temporary.name.replace(str(os.getpid()), "123"))
        left.touch()
        raise RuntimeError
    assert left.exists()
    (tmp_path / ".folder.77.tmp").touch()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.rglob("*")} == others | {"deep"}
