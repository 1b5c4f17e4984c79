"""Runs on sequences: their measures, tables, figures and page, without those of images."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.study.fake import config, write_run
from vitlocal.study.compare import compare
from vitlocal.study.figures import draw
from vitlocal.study.results import find_runs, heads_table, load, runs_table

LENGTHS = {"direct 3": 14, "chain 3": 40}


def write(folder, form, seed=0):
    """A run of 4 layers of 3 heads: one on the first token, one on the token before, one 3 tokens back."""
    length = LENGTHS[form]
    given = config(
        seed=seed, data={"class_path": "vitlocal.Arithmetic", "init_args": {"form": form.split()[0]}}
    )
    run = write_run(folder, given, accuracy=0.5 if form == "direct 3" else 0.99)
    heads = pd.read_csv(run / "heads.csv")
    late = heads["epoch"] == heads["epoch"].max()
    heads["mad"] *= length
    heads["class_mass"] = heads["class_log_odds"] = 0.0
    heads["self_mass"] = 0.1
    heads["mad_share"], heads["offset_peak"], heads["offset_peak_mass"] = 0.4, 0.0, 0.2
    heads["first_mass"] = np.where(late & (heads["head"] == 0) & (heads["layer"] == 2), 0.8, 0.1)
    heads["previous_mass"] = np.where(late & (heads["head"] == 1) & (heads["layer"] == 0), 0.9, 0.1)
    far = late & (heads["head"] == 2) & (heads["layer"] == 1)
    heads.loc[far, ["offset_peak", "offset_peak_mass"]] = 3.0, 0.7
    heads.to_csv(run / "heads.csv", index=False)
    uniform = {"mad": length / 4, "first_mass": 3 / length, "previous_mass": 3 / length, "entropy": 1.0}
    content = {"geometry": {"unit": "tokens", "class_token": "drop"}, "uniform": uniform}
    (run / "geometry.json").write_text(json.dumps(content))
    return run


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    for form in LENGTHS:
        for seed in (0, 1):
            write(
                root / "cells" / "a" / form / f"seed_{seed}" / "lightning_logs" / "a-b" / "version_0",
                form,
                seed,
            )
    (root / "study.yaml").write_text("conditions: [direct 3, chain 3]")
    return root


def test_a_row_has_what_sequences_have_and_no_class_token(study):
    row = runs_table(find_runs([study])).iloc[2]
    assert row["condition"] == "chain 3" and row["uniform_mad"] == 10 and row["uniform_first_mass"] == 3 / 40
    assert (row["first_mass_max"], row["previous_mass_max"], row["mad_share_mean"]) == pytest.approx(
        (0.8, 0.9, 0.4)
    )
    shares = row[["share_first", "share_own", "share_previous", "share_fixed", "share_broad"]].tolist()
    assert shares == pytest.approx([1 / 12, 0, 1 / 12, 1 / 12, 9 / 12])
    assert row[["class_mass_max", "mad_raw_min", "class_log_odds_max"]].isna().all()
    assert row["kind_of_min"] == "broad"


def test_the_page_is_of_sequences(study, tmp_path):
    compare([study], tmp_path / "out")
    summary = (tmp_path / "out" / "summary.md").read_text()
    for never in ("class token", "class mass", "raw MAD", "patch", "CutMix", "nan", "components"):
        assert never not in summary, never
    lines = summary.splitlines()
    header = next(line for line in lines if line.startswith("| condition | seeds")).split(" | ")
    chain = next(line for line in lines if line.startswith("| chain 3 | 2 ")).split(" | ")
    found = dict(zip(header, chain, strict=True))
    assert found["validation accuracy"].startswith("0.990 ± 0.000")
    assert found["largest weight on the first token"].startswith("0.800")
    assert found["heads: previous token"].startswith("0.083")
    assert not any(cell.strip(" |") in ("", "\N{EN DASH}") for cell in chain)
    assert "| chain 3 - direct 3 | data.form | 2 |" in summary
    assert "| condition | layer | MAD | entropy | self mass | weight on the first token |" in summary
    page = (tmp_path / "out" / "index.html").read_text()
    assert "in tokens: 0 looks at the token itself" in page and "CutMix" not in page.split("</header>")[0]
    assert "Accuracy and heads in training" in page and "own patch" not in page


def test_heads_are_followed_beside_accuracy_and_uniform_attention(study):
    runs = find_runs([study])
    table, heads = runs_table(runs), heads_table(runs)
    drawn = {each.name: each for each in draw(table, table, heads, "tokens")}
    assert next(iter(drawn)) == "heads_by_epoch" and "log_odds_by_epoch" not in drawn
    accuracy, mad, first, previous = drawn["heads_by_epoch"].figure.axes

    def curves(axes):
        return [np.asarray(line.get_ydata()) for line in axes.lines]

    measured = load(runs[2].folder).metrics["val/acc1"]
    assert any(len(y) == 4 and np.allclose(y, measured) for y in curves(accuracy))
    for axes, name, of, uniform in (
        (mad, "mad", "mean", {14 / 4, 10}),
        (first, "first_mass", "max", {3 / 14, 3 / 40}),
        (previous, "previous_mass", "max", {3 / 14, 3 / 40}),
    ):
        own = heads[heads["condition"] == "chain 3"]
        wanted = own.groupby(["run", "epoch"])[name].agg(of).groupby("epoch").mean()
        assert any(len(y) == 5 and np.allclose(y, wanted) for y in curves(axes))
        dotted = {round(float(line.get_ydata()[0]), 6) for line in axes.lines if line.get_linestyle() == ":"}
        assert dotted == {round(value, 6) for value in uniform}
    # Uniform attention differs, so its lines have the conditions' own colours.
    (by_depth,) = drawn["mad_by_depth"].figure.axes
    dotted = [line for line in by_depth.lines if line.get_linestyle() == ":"]
    others = {line.get_color() for line in by_depth.lines if line.get_linestyle() != ":"}
    assert len({line.get_color() for line in dotted} & others) == 2
    assert "in each one's colour" in drawn["mad_by_depth"].svg().decode()
