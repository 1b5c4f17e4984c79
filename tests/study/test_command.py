import re
import shlex
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml

from tests import forked
from tests.study import stand_in
from tests.study.fake import config, write_run
from vitlocal.cli import main
from vitlocal.cli.resolve import resolve
from vitlocal.study import cells, plan

TINY = (
    "--config digits.yaml --model.network.patch_size=16 --model.network.embed_dim=6 --model.network.depth=1 "
    "--model.network.num_heads=2 --model.warmup_epochs=0 --trainer.limit_train_batches=4 "
    "--locality.max_images=40 --trainer.max_epochs=3 --trainer.logger=false"
)
STUDY = {
    "name": "tiny",
    "data": {"digits": TINY},
    "conditions": {"modern": "--config modern.yaml", "baseline": "--config baseline.yaml"},
    "seeds": [0],
}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The words of a study in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return ["study", "--config=tiny.yaml"]


def test_a_study_killed_half_way_ends_as_if_it_had_not_been(study, tmp_path, capsys):
    begun = forked.start([*study, "--output=killed"], tmp_path)
    first = tmp_path / "killed" / "cells" / "digits" / "modern" / "seed_0"
    until = time.monotonic() + 120
    while not list(first.glob("lightning_logs/*/version_0/checkpoints/last.ckpt")):
        assert time.monotonic() < until and begun.is_alive()
        time.sleep(0.02)
    begun.kill()
    begun.join()
    main([*study, "--output=killed", "--workers=2"])
    assert "the results are in killed/results" in capsys.readouterr().out
    # The cell that was killed, uninterrupted.
    words = [*shlex.split(TINY), "--config=modern.yaml", "--seed_everything=0"]
    main(["fit", *words, "--trainer.devices=1", "--trainer.default_root_dir=whole"])
    (whole,) = tmp_path.glob("whole/lightning_logs/*/version_0/heads.csv")
    (killed,) = first.glob("lightning_logs/*/version_0/heads.csv")
    assert killed.read_text() == whole.read_text()
    table = pd.read_csv(tmp_path / "killed" / "results" / "runs.csv")
    assert table["condition"].tolist() == ["modern", "baseline"]  # in the study's order
    assert table["finished"].all() and (tmp_path / "killed" / "results" / "index.html").is_file()
    main(["compare", "killed", "--output=compared"])
    assert pd.read_csv("compared/runs.csv")["condition"].tolist() == ["modern", "baseline"]
    assert not list(tmp_path.rglob("version_1"))


def test_a_study_with_a_trunk_parts_from_its_end(study, tmp_path, capsys):
    conditions = {"modern": STUDY["conditions"]["modern"]}
    given = STUDY | {"conditions": conditions, "trunk": "--config baseline.yaml"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    main(study)
    results = tmp_path / "lightning_logs" / "study-tiny" / "results"
    table = pd.read_csv(results / "heads.csv")
    assert set(table["condition"]) == {"modern"}
    (trunk,) = tmp_path.glob(
        "lightning_logs/study-tiny/cells/digits/trunk/seed_0/lightning_logs/*/*/heads.csv"
    )
    ended = pd.read_csv(trunk).query("epoch == 3").drop(columns=["epoch", "step"])
    values = table.query("epoch == 0")[ended.columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(values, ended.reset_index(drop=True))
    main(["compare", str(results.parent), "--output=compared"])
    assert pd.read_csv("compared/runs.csv")["condition"].tolist() == ["modern"]
    with pytest.raises(SystemExit):
        main([*study, "--engine=slurm"])
    assert "engine is slurm but the study has a trunk" in capsys.readouterr().err


def test_a_dry_run_times_a_few_steps_of_each_kind_and_leaves_nothing(study, tmp_path, capsys):
    main([*study, "--dry_run", "--fit=--trainer.max_epochs=1000", "--seeds=[0,1]"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"4 to do; about \d+ (h \d+ min|min \d+ s|s) left", last)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.fixture
def quick(study, tmp_path, monkeypatch):
    """The same with cells that take no time."""
    stand_in.install(monkeypatch, tmp_path)
    monkeypatch.setattr(cells, "POLL", 0.02)
    return study


def test_a_dry_run_lists_and_leaves_nothing(quick, tmp_path, capsys):
    main([*quick, "--dry_run", "--seeds=[0,1]"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "study tiny: 4 cells in lightning_logs/study-tiny"
    assert lines[1].split() == ["to", "do", "digits/modern/seed_0", "0/3", "epochs"]
    assert lines[-1] == "4 to do; no estimate, since not all data are here"
    assert not (tmp_path / "lightning_logs").exists()


def test_small_is_on_the_digits_with_one_seed(quick, capsys):
    main([*quick, "--dry_run", "--small"])
    out = capsys.readouterr().out
    assert "study tiny-small: 2 cells in lightning_logs/study-tiny-small" in out and "0/20 epochs" in out


def test_small_may_have_data_of_its_own(quick, tmp_path, capsys):
    given = STUDY | {"data_of_small": {"few": f"{TINY} --trainer.max_epochs=2"}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    main([*quick, "--dry_run", "--small"])
    out = capsys.readouterr().out
    assert "few/modern/seed_0" in out and "0/2 epochs" in out and "digits" not in out
    main([*quick, "--dry_run"])
    assert "few" not in capsys.readouterr().out


def test_a_cell_that_fails_does_not_stop_the_rest(quick, tmp_path, capsys):
    conditions = {"fails": "--config baseline.yaml", "good": "--config modern.yaml"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(STUDY | {"conditions": conditions}))
    with pytest.raises(SystemExit) as ended:
        main(quick)
    said = capsys.readouterr().err
    assert ended.value.code == 1
    log = "lightning_logs/study-tiny/cells/digits/fails/seed_0/log.txt"
    assert f"1 of 2 cells failed, first digits/fails/seed_0 (the disk is full): see {log}" in said
    assert "digits/good/seed_0: done" in said


def test_one_cell_of_an_array_job(quick, tmp_path, capsys):
    main([*quick, "--cell=1"])
    assert [path.parent.parent.name for path in tmp_path.rglob("cell.json")] == ["baseline"]
    assert not (tmp_path / "lightning_logs" / "study-tiny" / "results").exists()
    assert yaml.safe_load((tmp_path / "lightning_logs" / "study-tiny" / "study.yaml").read_text()) == {
        "name": "tiny",
        "data": ["digits"],
        "conditions": ["modern", "baseline"],
        "seeds": [0],
    }


def test_slurm_gets_a_script_of_what_is_to_do(quick, tmp_path, capsys):
    main([*quick, "--cell=0"])
    capsys.readouterr()
    main([*quick, "--engine=slurm", "--cpus=4", "--seeds=[0,1]"])
    script = capsys.readouterr().out
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    lines = script.splitlines()
    assert {"#SBATCH --array=1,2,3", "#SBATCH --cpus-per-task=4", "#SBATCH --gpus-per-task=1"} <= set(lines)
    # What a task runs, without SLURM.
    words = shlex.split(lines[-1].replace("$SLURM_ARRAY_TASK_ID", "2"))
    assert words[:5] == ["exec", "srun", sys.executable, "-m", "vitlocal"]
    main(words[5:])
    done = {path.parent.relative_to(tmp_path / "lightning_logs") for path in tmp_path.rglob("cell.json")}
    names = {"/".join(path.parts[-2:]) for path in done}
    assert names == {"modern/seed_0", "modern/seed_1"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--workers=0"], "workers is 0"),
        (["--cpus=0"], "cpus is 0"),
        (["--gpus=-1"], "gpus is -1"),
        (["--gpus=0.5", "--engine=slurm"], "gpus is 0.5: give a whole number"),
        (["--name=a/b"], "name is 'a/b'"),
        (["--cell=2"], "cell is 2: the study has cells 0 to 1"),
        (["--seeds=[]"], "seeds is empty"),
        (["--fit=--model.widht=2"], "cell digits/modern/seed_0: there is no key model.widht"),
        (["--engine=slum"], "engine: "),
        (["--smal"], "small is meant"),
        (["--config=modern.yaml"], "protocol"),
    ],
)
def test_wrong_words(words, sentence, quick, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main([*quick, *words])
    said = capsys.readouterr().err
    assert ended.value.code in (1, 2) and sentence in said and said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_results_of_a_study_are_of_its_cells_in_its_order(study, tmp_path, monkeypatch):
    made = plan.cells(tmp_path / "s", resolve, STUDY["data"], STUDY["conditions"], [0])
    monkeypatch.setattr(cells, "run", lambda *_: None)
    for cell, least in zip(made, (0.1, 0.3), strict=True):
        write_run(cell.folder / "lightning_logs" / "digits-x" / "version_0", config(), least=least)
        done = {"fingerprint": cell.fingerprint, "status": "done", "seconds": 1}
        cells._write(cell, done)
    main([*study, "--output=s"])
    table = pd.read_csv(tmp_path / "s" / "results" / "runs.csv")
    assert table["mad_min"].round(3).tolist() == [0.1, 0.3]
