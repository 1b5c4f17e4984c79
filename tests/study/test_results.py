import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from tests import blobs
from tests.study.fake import config, write_outliers, write_run, write_study
from vitlocal.errors import InputError
from vitlocal.study.results import find_runs, heads_table, load, runs_table
from vitlocal.study.settings import flat


@pytest.fixture
def run_folder(tmp_path):
    return write_run(tmp_path / "lightning_logs" / "my-digits-modern" / "version_0", config(("mixing",), 3))


def test_load_names_a_run_by_its_folder(run_folder):
    run = load(run_folder)
    assert (run.data, run.condition, run.seed) == ("my-digits", "modern", 3)
    assert run.factors == {"photometric": False, "cutmix": True, "label_smoothing": False}
    assert len(run.heads) == 5 * 4 * 3 and run.epochs == 4 and run.finished
    assert run.command == f"python -m vitlocal fit --config {run_folder}/config.yaml"
    assert load(run_folder, condition="c", data="d").condition == "c"


@pytest.mark.parametrize(
    "mixing, cutmix",
    [
        ({"class_path": "vitlocal.protocol.CutMix", "init_args": {"probability": 0.0}}, False),
        ({"class_path": "CutMix", "init_args": {"probability": 0.1}}, True),
        ({"class_path": "vitlocal.protocol.MixUp", "init_args": {}}, False),
        (None, False),
    ],
)
def test_what_counts_as_cutmix(tmp_path, mixing, cutmix):
    settings = config()
    settings["protocol"]["mixing"] = mixing
    assert load(write_run(tmp_path / "version_0", settings)).factors["cutmix"] is cutmix


def _spoil(name, text=None, drop=None, change=None):
    def spoil(folder):
        path = folder / name
        if text is not None:
            path.write_bytes(text)
        elif drop is not None:
            path.write_text("".join(path.read_text().splitlines(keepends=True)[:drop]))
        elif change:
            path.write_text(path.read_text().replace(*change, 1))
        else:
            path.unlink()

    return spoil


@pytest.mark.parametrize(
    "spoil, said",
    [
        (_spoil("config.yaml"), "is no run"),
        (_spoil("config.yaml", b"a: [1"), "config.yaml"),
        (_spoil("config.yaml", b"a: 1"), "no protocol"),
        (_spoil("heads.csv"), "heads.csv is missing"),
        (_spoil("metrics.csv"), "metrics.csv is missing"),
        (_spoil("geometry.json", b"{}"), "geometry.json is damaged"),
        (_spoil("heads.csv", b""), "can't be read"),
        (_spoil("heads.csv", b"\xff\xfe\x00"), "can't be read"),
        (_spoil("metrics.csv", drop=1), "is empty"),
        (_spoil("heads.csv", drop=-2), "not every epoch"),
        (_spoil("heads.csv", change=("0.418", "x")), "no number"),
        (_spoil("heads.csv", change=("0.418", "")), "not finite"),
        (_spoil("heads.csv", change=("mad", "mud")), "no column mad"),
        (_spoil("metrics.csv", change=("\n1,", "\n,")), "no epoch"),
    ],
)
def test_damage_is_said_in_one_sentence(run_folder, spoil, said):
    spoil(run_folder)
    with pytest.raises(InputError, match=said) as raised:
        load(run_folder)
    assert "\n" not in str(raised.value) and str(run_folder) in str(raised.value)


def test_a_row_of_a_run_against_numbers_by_hand(run_folder):
    heads = pd.read_csv(run_folder / "heads.csv")
    heads.loc[(heads.epoch == 2) & (heads.layer == 3) & (heads["head"] == 1), "mad"] = 0.04
    heads.loc[(heads.epoch == 4) & (heads.layer == 3) & (heads["head"] == 0), ["mad", "self_mass"]] = (
        0.15,
        0.77,
    )
    heads.to_csv(run_folder / "heads.csv", index=False)
    (row,) = runs_table([load(run_folder)]).to_dict("records")
    last = heads.to_numpy()[-12:]  # the last epoch: 4 layers of 3 heads; mad is column 4, self mass 6
    assert row["mad_min"] == 0.15 and row["self_mass_of_min"] == 0.77
    assert row["mad_min_early"] == last[:6, 4].min()  # of 4 layers, 2 are early
    assert row["mad_min_of_training"] == 0.04
    assert row["below_0.05"] == 2 and row["below_0.1"] == 2 and math.isnan(row["below_0.024"])
    np.testing.assert_allclose(row["mad_layer_3"], last[9:, 4].mean())
    np.testing.assert_allclose(row["entropy_layer_0"], last[:3, 5].mean())
    np.testing.assert_allclose(row["self_mass_mean"], last[:, 6].mean())
    assert row["acc1"] == pytest.approx(0.9) and row["epochs"] == 4


OUTLIERS = {"inf_norm_max", "kurtosis_mean", "outlier_count", "do_nothing_mean", "update_mean"}


def test_outliers_of_a_run_that_observed_them(run_folder, tmp_path):
    without = write_run(tmp_path / "b" / "x-y" / "version_0", config())
    assert OUTLIERS.isdisjoint(runs_table([load(without)]).columns)
    runs = [load(without), load(write_outliers(run_folder, 10, 5, 2, 0.3))]
    first, second = runs_table(runs).to_dict("records")
    assert all(math.isnan(first[name]) for name in OUTLIERS)
    # Of 4 layers, the last has twice the others' values.
    expected = {"inf_norm_max": 20, "kurtosis_mean": 25 / 4, "outlier_count": 10, "do_nothing_mean": 0.3}
    assert {name: second[name] for name in expected} == pytest.approx(expected)
    assert second["update_mean"] == pytest.approx(0.075)
    assert list(runs_table(runs).columns)[:-5] == list(runs_table(runs[:1]).columns)
    (run_folder / "do_nothing.csv").unlink()  # of attention whose values can't be seen
    (row,) = runs_table([load(run_folder)]).to_dict("records")
    assert row["inf_norm_max"] == 20 and "do_nothing_mean" not in row


@pytest.mark.parametrize(
    "spoil, said",
    [
        (_spoil("outliers.csv", b""), "can't be read"),
        (_spoil("outliers.csv", drop=-1), "not every epoch"),
        (_spoil("do_nothing.csv", change=("\n0,0,0,1,", "\n0,0,0,0,")), "not every epoch"),
        (_spoil("outliers.csv", change=("block_kurtosis", "k")), "no column block_kurtosis"),
        (_spoil("do_nothing.csv", change=(",0.03", ",inf")), "not finite"),
    ],
)
def test_damaged_outliers(run_folder, spoil, said):
    write_outliers(run_folder)
    spoil(run_folder)
    with pytest.raises(InputError, match=said) as raised:
        load(run_folder)
    assert str(run_folder) in str(raised.value)


def test_heads_table_has_every_row_of_every_run(tmp_path):
    runs = [load(write_run(tmp_path / f"version_{seed}", config(seed=seed))) for seed in (5, 6)]
    table = heads_table(runs)
    assert len(table) == 2 * 5 * 4 * 3
    assert table.groupby(["run", "seed"]).size().to_dict() == {(0, 5): 60, (1, 6): 60}
    np.testing.assert_array_equal(table["mad"][60:], runs[1].heads["mad"])


def test_uniform_attention_on_the_grid_of_the_data_set(tmp_path):
    folder = write_run(tmp_path / "version_0", config())
    assert load(folder).measured.uniform_mad == pytest.approx(0.418, abs=5e-4)  # 8x8 patches
    # What the checkpoint says goes first: 2x2 patches have distances 0, 1, 1 and sqrt(2) over sqrt(2).
    (folder / "checkpoints").mkdir()
    torch.save({"hyper_parameters": {"image_size": (8, 8)}}, folder / "checkpoints" / "best.ckpt")
    assert load(folder).measured.uniform_mad == pytest.approx((2 / math.sqrt(2) + 1) / 4)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"damaged")
    assert load(folder).measured.uniform_mad == pytest.approx((2 / math.sqrt(2) + 1) / 4)
    # What the run itself wrote goes before all.
    content = {"geometry": {"unit": "patches", "class_token": "keep"}, "uniform": {"mad": 1.25}}
    (folder / "geometry.json").write_text(json.dumps(content))
    assert load(folder).measured == ("patches", "keep", {"mad": 1.25})


def test_uniform_in_the_runs_unit_and_unknown(tmp_path):
    settings = config(model={"patch_size": 16}, locality={"init_args": {"unit": "pixels"}})
    # 2x2 patches of 16 pixels: mean of 0, 16, 16 and 16 sqrt(2)
    measured = load(write_run(tmp_path / "a", settings)).measured
    assert measured.uniform_mad == pytest.approx((32 + 16 * math.sqrt(2)) / 4)
    settings = config(data={"class_path": "my.own.Data"})
    assert load(write_run(tmp_path / "b", settings)).measured.uniform == {}


def test_find_runs_reads_cells_of_a_study(tmp_path, capsys):
    root = write_study(
        tmp_path / "study-x", {"baseline": (), "+c": ("mixing",)}, lambda *_: 0.3, seeds=(0, 4)
    )
    cell = root / "cells" / "digits" / "+c" / "seed_4" / "lightning_logs" / "digits-protocol"
    write_run(cell / "version_10", config(("mixing",), 4), least=0.1)  # run again: the newest counts
    write_run(cell / "version_9", config(("mixing",), 4), least=0.2)
    unbegun = root / "cells" / "digits" / "+c" / "seed_5" / "lightning_logs" / "x" / "version_0"
    unbegun.mkdir(parents=True)
    (unbegun / "config.yaml").write_text("protocol: {}")
    runs = find_runs([root])
    assert {(run.data, run.condition, run.seed) for run in runs} == {
        ("digits", condition, seed) for condition in ("baseline", "+c") for seed in (0, 4)
    }
    (again,) = [run for run in runs if (run.condition, run.seed) == ("+c", 4)]
    assert again.folder.name == "version_10"
    assert again.command == "python -m vitlocal fit --seed_everything=4"
    assert capsys.readouterr().err == ""


def test_find_runs_tells_what_it_leaves_out(tmp_path, capsys):
    root = write_study(tmp_path, {"baseline": ()}, lambda *_: 0.3, seeds=(0, 1))
    damaged = next(root.rglob("seed_1/**/heads.csv"))
    damaged.write_text("epoch\n")
    assert len(find_runs([root])) == 1
    assert str(damaged) in capsys.readouterr().err
    with pytest.raises(InputError, match=r"heads\.csv"):
        find_runs([damaged.parent])


def test_conditions_outside_a_study_are_told_apart_by_what_differs(tmp_path, capsys):
    logs = tmp_path / "lightning_logs" / "digits-modern"
    for version, (seed, probability, epochs) in enumerate(
        [(0, 0.5, 4), (1, 0.5, 4), (0, 1.0, 4), (0, 1.0, 4)]
    ):
        settings = config(("mixing",), seed, epochs)
        settings["protocol"]["mixing"]["init_args"]["probability"] = probability
        settings["trainer"]["default_root_dir"] = str(version)
        write_run(logs / f"version_{version}", settings)
    runs = find_runs([logs])
    names = ["modern, mixing.probability=0.5"] * 2 + ["modern, mixing.probability=1.0"]
    assert [run.condition for run in runs] == names
    assert [run.seed for run in runs] == [0, 1, 0]
    assert runs[2].folder.name == "version_3"  # of the same condition and seed, the newest
    assert "version_2" in capsys.readouterr().err
    assert [run.condition for run in find_runs([logs / "version_0", logs / "version_1"])] == ["modern"] * 2


def test_a_path_without_runs(tmp_path):
    for path, said in ((tmp_path / "nothing", "not there"), (tmp_path, "holds no run")):
        with pytest.raises(InputError, match=said):
            find_runs([path])


def test_an_unfinished_run_is_known(tmp_path):
    folder = write_run(tmp_path / "version_0", config(epochs=9), epochs=4)
    assert not load(folder).finished
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["trainer"]["max_epochs"] = None
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    assert load(folder).finished


def test_a_unit_of_null_is_that_of_earlier_releases(tmp_path):
    """The default was grid; then null, which on a grid is the same."""
    units = [{"init_args": {"unit": unit}} for unit in ("grid", None)]
    before, after = (flat(config(locality=unit)) for unit in units)
    assert before == after and before["locality.unit"] == '"grid"'
    assert flat(config(locality={"init_args": {"unit": "patches"}})) != before


def test_a_run_that_was_stopped_by_steps_is_finished(tmp_path):
    steps = load(write_run(tmp_path / "version_0", config(epochs=9), epochs=4)).metrics["step"].max()
    for number, wanted in ((1, steps), (2, steps + 1)):
        settings = config(epochs=9)
        settings["trainer"]["max_steps"] = int(wanted)
        run = load(write_run(tmp_path / f"version_{number}", settings, epochs=4))
        assert run.finished == (wanted == steps)


def test_a_run_that_was_stopped_early_is_finished(tmp_path, npz_file):
    words = ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
    words += ["--trainer.callbacks.mode=max", "--trainer.callbacks.patience=1", "--trainer.max_epochs=30"]
    early = load(blobs.fit(tmp_path, npz_file, *words))
    assert early.epochs < 30 and early.finished
    cut = load(
        blobs.fit(tmp_path, npz_file, *words[:2], "--trainer.max_epochs=30", "--trainer.max_time=00:00:00:01")
    )
    assert cut.epochs < 30 and not cut.finished


def test_a_default_of_the_model_is_named_so(tmp_path):
    models = {
        "softmax": {"patch_size": 4},
        "gated": {"patch_size": 4, "attention": "gated"},
    }  # as an earlier release wrote it
    for number, model in enumerate(models.values()):
        write_run(tmp_path / "logs" / "digits-modern" / f"version_{number}", config(model=model))
    names = [run.condition for run in find_runs([tmp_path])]
    assert names == ["modern, model.network.attention=default", 'modern, model.network.attention="Gated"']
