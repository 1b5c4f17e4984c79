import math

import pandas as pd
import pytest
from scipy import stats

from tests.study.fake import config, write_run
from vitlocal.errors import InputError
from vitlocal.study.compare import compare
from vitlocal.study.pruned import row
from vitlocal.study.pruned_figures import draw
from vitlocal.study.style import Style

MAD = {0: [0.3, 0.1, 0.2], 1: [0.4, 0.2, 0.3]}
ORDER = {0: [2, 0, 1], 1: [0, 1, 2]}


def write(folder):
    folder.mkdir(parents=True)
    rows = [
        ("dense", 1.0, 0.9),
        ("ziplm", 1.5, 0.8),
        ("random", 1.5, 0.2),
        ("ziplm", 2.0, 0.7),
        ("gradual", 2.0, 0.85),
    ]
    pd.DataFrame(rows, columns=["method", "wanted", "acc1"]).to_csv(folder / "prune.csv", index=False)
    heads = [
        {"layer": layer, "head": head, "order": ORDER[layer][head], "mad": MAD[layer][head]}
        | {"self_mass": 0.1 * ORDER[layer][head], "class_mass": 0.0, "entropy": -0.1 * ORDER[layer][head]}
        for layer in MAD
        for head in range(3)
    ]
    pd.DataFrame(heads).to_csv(folder / "prune_heads.csv", index=False)


def test_what_a_run_keeps_at_each_speedup(tmp_path):
    write(tmp_path / "prune")
    rho = sum(stats.spearmanr(ORDER[layer], MAD[layer]).statistic for layer in MAD) / 2
    assert row(tmp_path / "prune") == {
        "acc1_pruned_1": 0.9,
        "acc1_pruned_1.5": 0.8,
        "acc1_pruned_2": 0.7,
        "acc1_gradual_2": 0.85,
        "prune_order_mad": pytest.approx(rho),
        "prune_order_self_mass": pytest.approx(1),
        "prune_order_class_mass": pytest.approx(math.nan, nan_ok=True),  # all heads have the same
        "prune_order_entropy": pytest.approx(-1),
    }
    assert row(tmp_path / "nowhere") == {}
    (tmp_path / "prune" / "prune.csv").write_text("method,wanted\n")
    with pytest.raises(InputError, match=r"prune\.csv can't be read"):
        row(tmp_path / "prune")


def test_compare_shows_it(tmp_path):
    run = write_run(tmp_path / "logs" / "digits-modern" / "version_0", config())
    write(run / "prune")
    compare([run], tmp_path / "out")
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "accuracy pruned to 1.5x" in summary and "accuracy pruned gradually to 2x" in summary
    assert "accuracy pruned to 3x" not in summary
    page = (tmp_path / "out" / "index.html").read_text()
    for name in ("pruned_accuracy", "pruned_order"):
        assert (tmp_path / "out" / "figures" / f"digits-{name}.png").is_file()
        assert f'<figure id="d0-{name}">' in page


def test_the_figures_hold_the_accuracies_and_the_orders():
    table = pd.DataFrame(
        {
            "condition": ["a", "a", "b"],
            "acc1_pruned_1": [0.9, 0.8, 0.7],
            "acc1_pruned_2": [0.8, 0.6, math.nan],
            "acc1_gradual_3": [0.7, 0.5, 0.4],
            "prune_order_mad": [-0.5, 0.5, 1.0],
        }
    )
    look = {"a": Style("#0072B2", "o", True), "b": Style("#E69F00", "s", False)}
    accuracy, order = draw(table, look)
    one_shot, gradual = accuracy.figure.axes
    lines = [[*zip(*line.get_data(), strict=True)] for axes in (one_shot, gradual) for line in axes.lines]
    assert [[(x, pytest.approx(y)) for x, y in line] for line in lines] == [
        [(1, 0.85), (2, 0.7)],
        [(1, 0.7)],
        [(1, 0.85), (3, 0.6)],
        [(1, 0.7), (3, 0.4)],
    ]
    (axes,) = order.figure.axes
    assert [list(line.get_ydata()) for line in axes.lines[1:]] == [[-0.5, 0.5], [1.0]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["MAD"]
    assert draw(table[["condition"]], look) == []
