import json
import threading
import time

import pytest
import yaml

from tests.study import stand_in
from vitlocal.errors import InputError
from vitlocal.study import cells, local
from vitlocal.study.plan import Cell
from vitlocal.study.progress import duration, listing, seconds_left


def make(folder, condition, seed=0, fingerprint="f", then=()):
    place = folder / "cells" / "digits" / condition / f"seed_{seed}"
    return Cell(
        "digits", condition, seed, place, ("--a=1",), then, fingerprint, {"model.network.embed_dim": "12"}, 2
    )


def calls(cell):
    return [json.loads(line) for line in (cell.folder / "calls.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    stand_in.install(monkeypatch, tmp_path)
    monkeypatch.setattr(cells, "POLL", 0.02)
    monkeypatch.setattr(local, "SECONDS_BETWEEN_LOOKS", 0.02)


def run(cell, stop=None):
    cells.run(cell, {"OMP_NUM_THREADS": "3"}, stop or threading.Event())
    return cells.state(cell)


def test_a_cell_runs_once(tmp_path):
    cell = make(tmp_path, "good")
    assert cells.state(cell) == ("to do", 0, 0, "")
    assert not cell.folder.exists()  # looking leaves nothing
    done = run(cell)
    assert (done.status, done.epochs) == ("done", 2) and done.seconds > 0
    assert run(cell) == done
    ((words, environment),) = calls(cell)
    assert words[:4] == ["-m", "vitlocal", "fit", "--a=1"] and "--ckpt_path=last" not in words
    assert environment["OMP_NUM_THREADS"] == "3"
    record = json.loads((cell.folder / "cell.json").read_text())
    assert record["command"] == "python -m vitlocal fit --a=1"


def test_a_failure_is_told_in_its_own_sentence_and_tried_again(tmp_path):
    cell = make(tmp_path, "fails")
    assert run(cell)[::3] == ("failed", "the disk is full")
    assert run(cell).status == "failed" and len(calls(cell)) == 2


def test_what_is_done_with_a_run(tmp_path):
    cell = make(tmp_path, "good", then=("measure", "--of={run}", "--trainer.default_root_dir={run}/../../.."))
    assert run(cell).status == "done"
    version = cells.newest_run(cell)
    assert [words[2] for words, _ in calls(cell)] == ["fit", "measure"]
    assert calls(cell)[1][0][3] == f"--of={version}"
    assert run(make(tmp_path, "fails", then=("measure", "{run}"))).status == "failed"
    assert len(calls(make(tmp_path, "fails"))) == 1  # nothing is done with a run that failed


def test_a_killed_process(tmp_path):
    assert run(make(tmp_path, "dies"))[::3] == ("failed", "killed by signal 9")


def in_background(cell, stop):
    thread = threading.Thread(target=cells.run, args=(cell, {}, stop))
    thread.start()
    until = time.monotonic() + 20
    while not (cell.folder / "lightning_logs").exists() or cells.state(cell).epochs < 1:
        assert time.monotonic() < until
        time.sleep(0.02)
    return thread


def test_a_run_that_is_told_to_stop_saves_itself_and_is_gone_on_with(tmp_path):
    cell, stop = make(tmp_path, "waits"), threading.Event()
    thread = in_background(cell, stop)
    assert cells.state(cell).status == "running"
    stop.set()
    thread.join(20)
    before = cells.state(cell)
    assert (before.status, before.epochs) == ("interrupted", 1)
    record = json.loads((cell.folder / "cell.json").read_text())
    (cell.folder / "cell.json").write_text(json.dumps(record | {"seconds": 100.0}))
    after = run(cell)
    assert after.status == "done" and after.seconds > 100  # of both processes
    assert [("--ckpt_path=last" in words) for words, _ in calls(cell)] == [False, True]


def test_a_cell_is_one_process_at_a_time(tmp_path):
    cell, stop, second = make(tmp_path, "waits"), threading.Event(), threading.Event()
    first = in_background(cell, stop)
    waiting = threading.Thread(target=cells.run, args=(cell, {}, second))
    waiting.start()
    time.sleep(0.2)
    assert len(calls(cell)) == 1
    stop.set()
    first.join(20)
    waiting.join(20)
    assert cells.state(cell).status == "done" and len(calls(cell)) == 2


def test_a_cell_that_was_killed_with_its_study_is_not_running(tmp_path):
    cell = make(tmp_path, "good")
    cell.folder.mkdir(parents=True)
    record = {"fingerprint": "f", "status": "running", "seconds": 3.0}
    (cell.folder / "cell.json").write_text(json.dumps(record))
    assert cells.state(cell).status == "to do"
    (cell.folder / "lightning_logs" / "digits-x" / "version_0").mkdir(parents=True)
    assert cells.state(cell).status == "interrupted"
    assert run(cell).status == "done"


def test_other_settings_are_refused_and_named(tmp_path):
    cell = make(tmp_path, "good")
    run(cell)
    version = cells.newest_run(cell)
    (version / "config.yaml").write_text(yaml.safe_dump({"model": {"width": 24}}))
    other = make(tmp_path, "good", fingerprint="g")
    with pytest.raises(InputError, match=r"model\.network\.embed_dim is 24 there and 12 here"):
        cells.state(other)
    (version / "config.yaml").unlink()
    with pytest.raises(InputError, match="other settings: give the study another output"):
        cells.state(other)
    (cell.folder / "cell.json").write_text("{")
    with pytest.raises(InputError, match=r"cell\.json is damaged"):
        cells.state(cell)


def test_several_at_once_and_one_that_fails(tmp_path):
    every = [make(tmp_path, condition, seed) for condition in ("good", "fails", "well") for seed in (0, 1)]
    shown = []
    local.run(every, 3, lambda: shown.append(1))
    assert [cells.state(cell).status for cell in every] == ["done"] * 2 + ["failed"] * 2 + ["done"] * 2
    assert shown


def test_what_ends_a_study_ends_its_runs(tmp_path):
    every = [make(tmp_path, "waits"), make(tmp_path, "waits", 1), make(tmp_path, "good")]
    until = time.monotonic() + 20

    def show():
        if all(cells.state(cell).epochs for cell in every[:2]) or time.monotonic() > until:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.run(every, 2, show)
    assert [cells.state(cell).status for cell in every] == ["interrupted", "interrupted", "to do"]


@pytest.mark.parametrize(
    ("workers", "cpus", "gpus", "threads", "shares"),
    [
        (1, 8, [], "8", [None]),
        (3, 8, [], "2", [None] * 3),
        (16, 8, [], "1", [None] * 16),
        (1, 8, ["0", "1"], "8", ["0,1"]),
        (2, 8, ["0", "1", "2", "3"], "4", ["0,1", "2,3"]),
        (3, 9, ["4", "6"], "3", ["4", "6", "4"]),
    ],
)
def test_what_each_worker_may_use(monkeypatch, workers, cpus, gpus, threads, shares):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    given = local.environments(workers, cpus, gpus)
    assert [one.get("CUDA_VISIBLE_DEVICES") for one in given] == shares
    assert {one["OMP_NUM_THREADS"] for one in given} == {threads}


def test_estimate_of_the_time_left(tmp_path):
    every = [make(tmp_path, condition) for condition in "abcd"]
    states = [cells.State("done", 2, 10.0, ""), cells.State("done", 2, 6.0, "")]
    states += [cells.State("interrupted", 1, 3.0, ""), cells.State("to do", 0, 0, "")]
    assert seconds_left(every, states, 1) == 3 * 16 / 4
    assert seconds_left(every, states, 2) == 6
    assert seconds_left(every[2:], states[2:], 1) is None
    assert seconds_left(every[:2], states[:2], 1) == 0
    measured = {cell.name: 7.0 for cell in every[2:]}
    left = sum(cell.epochs - now.epochs for cell, now in zip(every[2:], states[2:], strict=True))
    assert seconds_left(every[2:], states[2:], 1, measured) == 7 * left > 0
    lines = listing(every, states, 1, {}).splitlines()
    assert lines[2].split() == ["interrupted", "digits/c/seed_0", "1/2", "epochs", "3", "s"]
    assert lines[-1] == "1 to do, 1 interrupted, 2 done; about 12 s left"
    assert [duration(seconds) for seconds in (59.4, 61, 7384)] == ["59 s", "1 min 1 s", "2 h 3 min"]
