"""Wrong input is refused with one sentence, and leaves nothing behind."""

import os
import pickle
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from tests.spoilt import Crafted, blobs, object_array, on_blobs
from tests.wrong_inputs import WRONG_INPUTS
from vitlocal.cli import main, messages

NAMES = [wrong.what for wrong in WRONG_INPUTS]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrong", WRONG_INPUTS, ids=NAMES)
def test_one_sentence_and_nothing_left_behind(wrong, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = wrong.make(tmp_path)
    capsys.readouterr()
    with wrong.fault(), pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code in (1, 2)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (sentence,) = [line for line in said.splitlines() if line.startswith("vitlocal: error: ")]
    assert said.endswith(sentence + "\n")
    assert re.search(".*".join(map(re.escape, wrong.says)), sentence), sentence
    assert len(sentence) < 500
    assert not (tmp_path / "executed").exists()
    assert list(tmp_path.glob("**/version_*")) == [] or wrong.starts


def test_what_is_crafted_would_act_where_pickles_are_loaded(tmp_path, monkeypatch):
    """Else that nothing was executed would prove nothing."""
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "executed"
    pickle.loads(pickle.dumps(Crafted()))
    assert marker.is_dir()
    marker.rmdir()
    torch.save({"state_dict": {}, "hyper_parameters": {"a": Crafted()}}, "given.ckpt")
    torch.load("given.ckpt", weights_only=False)
    assert marker.is_dir()
    marker.rmdir()
    blobs(tmp_path / "blobs.npz", x=object_array())
    assert len(np.load("blobs.npz", allow_pickle=True)["x"]) == 16
    assert marker.is_dir()


def test_every_mistake_has_a_name_of_its_own():
    assert len(set(NAMES)) == len(NAMES)


def test_debug_brings_the_traceback(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VITLOCAL_DEBUG", "1")
    with pytest.raises(ValueError, match="batch_size=0") as raised:
        main(on_blobs(tmp_path, "--data.batch_size=0"))
    assert messages.of(raised.value) == "batch_size=0: give at least 1"
    command = [sys.executable, "-m", "vitlocal", "fit", "--model.network.embed_dim=big"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0 and "Traceback" in done.stderr and "model.network.embed_dim" in done.stderr


def test_a_defect_keeps_its_traceback(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def broken(self, stage):
        raise KeyError("a mistake of ours")

    monkeypatch.setattr("vitlocal.tasks.Classification.setup", broken)
    with pytest.raises(KeyError, match="a mistake of ours"):
        main(on_blobs(tmp_path))


def test_of_two_processes_one_says_it(tmp_path):
    command = [sys.executable, "-m", "vitlocal", *on_blobs(tmp_path, "--model.network.patch_size=5")]
    command += ["--trainer.strategy=ddp", "--trainer.devices=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("vitlocal: error: patch_size is 5") == 1
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("**/version_*"))


def test_another_process_waits_before_it_speaks(monkeypatch, capsys):
    monkeypatch.setattr(messages.rank_zero_only, "rank", 1)
    monkeypatch.setattr(messages, "GRACE", 0.3)
    begun = time.monotonic()
    with pytest.raises(SystemExit):
        messages.leave("something of this process alone")
    assert time.monotonic() - begun >= 0.3
    assert capsys.readouterr().err == "vitlocal: error: something of this process alone\n"
    parents = iter([1000, 1000, 1])  # the first process has ended
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    with pytest.raises(SystemExit):
        messages.leave("what the first process has said")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            "Parser key \"a.b\":\n Expected a <class 'int'>. Got value: x",
            "a.b: Expected a <class 'int'>. Got value: x",
        ),
        ("unrecognized arguments: --a.bc=1", "there is no key a.bc; perhaps a.bd is meant"),
        ("unrecognized arguments: --zzz", "there is no key zzz; known are other"),
        ("Something\n\n  new", "Something new"),
        ("x" * 1000, "x" * 299 + "…"),
    ],
)
def test_messages_of_jsonargparse_become_a_sentence(message, sentence):
    assert messages.condensed(message, ["a.bd", "a.e", "other"]) == sentence


def test_blobs_are_trained_on_where_nothing_is_wrong(tmp_path, monkeypatch):
    """Else the list would prove nothing."""
    monkeypatch.chdir(tmp_path)
    blobs(tmp_path / "blobs.npz")
    main(on_blobs(tmp_path))
    assert list(tmp_path.glob("lightning_logs/*/version_0/checkpoints/best.ckpt"))
