import csv

import pytest

from tests.study.fake import ABLATION, config, write_outliers, write_run, write_study
from vitlocal.errors import InputError
from vitlocal.study.compare import compare, write_results
from vitlocal.study.results import load

PAIR = {"baseline": (), "a|b*c": ("mixing",)}


def test_compare_writes_every_file(tmp_path, capsys):
    study = write_study(tmp_path / "study", PAIR, lambda *_: 0.3, data=("digits", "a b"), seeds=(0, 1))
    output = tmp_path / "new" / "out"
    compare([study], output)
    assert str(output / "index.html") in capsys.readouterr().out
    written = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    names = ("mad_by_depth", "entropy_by_depth", "mad_min_by_epoch", "effects", "entropy_by_mad")
    figures = {
        f"figures/{data}-{name}.{kind}"
        for data in ("digits", "a_b_0")
        for name in (*names, "log_odds_by_epoch", "heads_by_layer")
        for kind in ("png", "svg")
    }
    assert written == figures | {"runs.csv", "heads.csv", "summary.md", "index.html"}
    with (output / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["data"], row["condition"], row["seed"]) for row in rows] == [
        (data, condition, seed) for data in ("a b", "digits") for condition in sorted(PAIR) for seed in "01"
    ]
    with (output / "heads.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8 * 5 * 4 * 3
    summary = (output / "summary.md").read_text()
    assert "| a\\|b\\*c | 2 | 0.300 ± 0.000 \\[0.300, 0.300]" in summary


def test_outliers_beside_locality_where_some_run_observed_them(tmp_path):
    study = write_study(tmp_path / "study", PAIR, lambda *_: 0.3, data=("digits", "other"), seeds=(0, 1))
    for seed in (0, 1):
        (run,) = study.glob(f"cells/digits/baseline/seed_{seed}/lightning_logs/*/version_0")
        write_outliers(run, inf_norm=10 + seed)
    compare([study], tmp_path / "out")
    digits, other = (tmp_path / "out" / "summary.md").read_text().split("\n## other\n")
    header = next(line for line in digits.splitlines() if line.startswith("| condition | seeds"))
    assert header.endswith(
        "| outliers an image | share of attention that does nothing | mean update of a head |"
    )
    place = header.split(" | ").index("maximum infinity norm")
    rows = digits.split("### Conditions")[1].split("###")[0].splitlines()
    (baseline,) = [line.split(" | ") for line in rows if line.startswith("| baseline")]
    (cutmix,) = [line.split(" | ") for line in rows if line.startswith("| a\\|b")]
    # 20 and 22: a mean of 21, a standard deviation of 1.414, an interval of 12.706 for one degree of freedom
    assert baseline[place] == "21.000 ± 1.414 \\[8.294, 33.706]"
    assert set(cutmix[place:]) <= {"\N{EN DASH}", "\N{EN DASH} |"}
    assert "infinity norm" not in other and "blocks' outputs" not in other
    figures = {path.name for path in (tmp_path / "out" / "figures").glob("*outliers*")}
    assert figures == {"digits-outliers_by_mad.png", "digits-outliers_by_mad.svg"}
    assert (tmp_path / "out" / "index.html").read_text().count("<h3>Outliers and int8 against MAD</h3>") == 1


def test_the_same_runs_give_the_same_files(tmp_path):
    study = write_study(tmp_path / "study", PAIR, lambda *_: 0.3, seeds=(0, 1))
    for name in "ab":
        compare([study], tmp_path / name)
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_statistics_are_of_finished_runs(tmp_path):
    folder = tmp_path / "cells" / "digits"
    for condition, epochs, least in (("done", 4, 0.2), ("begun", 2, 0.01)):
        run = folder / condition / "seed_0" / "lightning_logs" / "digits-x" / "version_0"
        write_run(run, config(), epochs=epochs, least=least)
    compare([tmp_path], tmp_path / "out")
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "Not finished" in summary and "begun (seed 0)" in summary
    conditions = summary.split("### Conditions")[1].split("###")[0]
    assert "| done |" in conditions and "begun" not in conditions
    assert "| begun | 0 | 2 |" in summary.split("### Runs")[1]


def test_runs_that_are_all_unfinished_are_counted_as_they_are(tmp_path):
    run = write_run(tmp_path / "logs" / "digits-baseline" / "version_0", config(epochs=9), epochs=4)
    compare([run], tmp_path / "out")
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "No run has all of its epochs yet" in summary and "single run" in summary


def test_one_seed_of_a_whole_ablation(tmp_path):
    study = write_study(tmp_path, ABLATION, lambda c, k, r: 0.02 if "mixing" in k else 0.3, seeds=(0,))
    compare([study], tmp_path / "out")
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "undecided" in summary and "estimates without intervals" in summary
    effects = summary.split("### Effects")[1].split("###")[0]
    assert "| cutmix | -0.280 |" in effects


def test_what_can_not_be_compared(tmp_path):
    with pytest.raises(InputError, match="give at least one"):
        compare([], tmp_path / "out")
    with pytest.raises(InputError, match="no runs"):
        write_results([], tmp_path / "out", "t")
    one = load(write_run(tmp_path / "a", config()))
    other = load(write_run(tmp_path / "b", config(locality={"init_args": {"unit": "patches"}})))
    with pytest.raises(InputError, match="unit=grid class_token=drop, unit=patches class_token=drop"):
        write_results([one, other], tmp_path / "out", "t")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        write_results([one], tmp_path / "file" / "out", "t")


def test_two_data_sets_whose_names_differ_in_signs_only(tmp_path):
    study = write_study(tmp_path / "s", {"baseline": ()}, lambda *_: 0.3, data=("a b", "a_b"), seeds=(0,))
    compare([study], tmp_path / "out")
    assert len(list((tmp_path / "out" / "figures").glob("*mad_by_depth.svg"))) == 2
