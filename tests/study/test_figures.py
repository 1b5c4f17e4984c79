import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from tests.study.fake import ABLATION, write_study
from vitlocal.heads.figures import REFERENCE_COLOUR
from vitlocal.study.figures import draw
from vitlocal.study.results import find_runs, heads_table, runs_table
from vitlocal.study.style import COLOURS, styles

PATCHES = np.array(list(itertools.product(range(8), repeat=2)))
UNIFORM = np.linalg.norm(PATCHES[:, None] - PATCHES, axis=-1).mean() / np.hypot(7, 7)  # over all pairs


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    root = write_study(
        tmp_path_factory.mktemp("study"),
        ABLATION,
        lambda condition, components, rng: (0.05 if "mixing" in components else 0.3) + 0.02 * rng.random(),
    )
    runs = find_runs([root])
    return runs_table(runs), heads_table(runs)


@pytest.fixture(scope="module")
def drawn(tables):
    table, heads = tables
    return {each.name: each for each in draw(table, table, heads, "grid")}


def test_a_dotted_line_is_named_in_the_legend(drawn):
    dotted = {
        name
        for name, each in drawn.items()
        if any(line.get_linestyle() == ":" for axes in each.figure.axes for line in axes.lines)
    }
    named = {
        name
        for name, each in drawn.items()
        for key in each.figure.legends
        if "uniform attention" in [text.get_text() for text in key.get_texts()]
    }
    # The map of heads has it in its colour bar, and says so below.
    assert dotted - {"heads_by_layer"} == named >= {"mad_by_depth", "log_odds_by_epoch"}


def test_outliers_of_each_run_in_their_place(tables):
    table, heads = tables
    observed = table.assign(kurtosis_mean=np.arange(len(table)) + 3.0, do_nothing_mean=np.nan)
    figures = {each.name: each for each in draw(observed, observed, heads, "grid")}
    (axes,) = figures["outliers_by_mad"].figure.axes  # nobody knows the share of doing nothing
    assert axes.get_title() == "mean kurtosis"
    expected = observed[["mad_mean_early", "kurtosis_mean"]].to_numpy()
    np.testing.assert_allclose(sorted(points(axes).tolist()), sorted(expected.tolist()))
    modern = observed[observed["condition"] == "modern"]
    (line,) = [line for line in axes.lines if line.get_color() == styles(table)["modern"].colour]
    np.testing.assert_allclose(line.get_ydata(), modern["kurtosis_mean"])


def test_what_int8_costs_is_a_difference(tables):
    table, heads = tables
    lost = np.linspace(0, 0.1, len(table))
    quantized = table.assign(kurtosis_mean=3.0, acc1_fp32=0.9, acc1_int8=0.9 - lost, int8_size=0.27)
    figures = {each.name: each for each in draw(quantized, quantized, heads, "grid")}
    kurtosis, int8 = figures["outliers_by_mad"].figure.axes
    assert kurtosis.get_title() == "mean kurtosis" and "lost in int8" in int8.get_title().replace("\n", " ")
    expected = np.stack([quantized["mad_mean_early"], lost], axis=1)
    np.testing.assert_allclose(sorted(points(int8).tolist()), sorted(expected.tolist()), atol=1e-12)


def points(axes):
    return np.concatenate([line.get_xydata() for line in axes.lines])


def test_there_is_every_figure_with_its_words(drawn):
    assert list(drawn) == [
        "mad_by_depth", "entropy_by_depth", "mad_min_by_epoch", "effects",
        "log_odds_by_epoch", "entropy_by_mad", "heads_by_layer",
    ]  # fmt: skip
    assert all(each.shows and each.limits for each in drawn.values())


@pytest.mark.parametrize("name, column, uniform", [("mad", "mad", UNIFORM), ("entropy", "entropy", 1)])
def test_every_head_is_in_the_place_of_its_layer(tables, drawn, name, column, uniform):
    _, heads = tables
    (axes,) = drawn[f"{name}_by_depth"].figure.axes
    look = styles(tables[0])
    last = heads[heads.epoch == 4]
    for index, (condition, style) in enumerate(look.items()):
        dots, means = (
            line.get_xydata()
            for line in axes.lines
            if line.get_color() == style.colour and len(line.get_xydata()) > 2
        )
        rows = last[last.condition == condition]
        np.testing.assert_allclose(dots[:, 1], rows[column])
        np.testing.assert_array_equal(dots[:, 0].round(), rows["layer"])
        expected = [rows[column][rows.layer == layer].mean() for layer in range(4)]
        np.testing.assert_allclose(means[:, 1], expected)
        assert dots[0, 0] == pytest.approx(0.76 * (2 * index - 7) / 16)  # beside each other, around the layer
    assert any(np.allclose(line.get_ydata(), uniform, atol=1e-6) for line in axes.lines)


def test_curves_of_the_minimum_and_the_range_of_seeds(tables, drawn):
    _, heads = tables
    for axes, depth in zip(drawn["mad_min_by_epoch"].figure.axes, (4, 2), strict=True):
        rows = heads[(heads.condition == "modern") & (heads.layer < depth)]
        least = np.array(
            [[rows.mad[(rows.seed == s) & (rows.epoch == e)].min() for e in range(5)] for s in range(3)]
        )
        curves = [line.get_ydata() for line in axes.lines]
        assert any(len(y) == 5 and np.allclose(y, least.mean(0)) for y in curves)
        bands = [band.get_paths()[0].vertices[:, 1] for band in axes.collections]
        assert any(
            np.isclose(b.min(), least.min()) and np.isclose(b.max(), least.max(0).max()) for b in bands
        )


def test_entropy_against_mad_has_every_head_and_uniform_attention(tables, drawn):
    last = tables[1][tables[1].epoch == 4]
    (axes,) = drawn["entropy_by_mad"].figure.axes
    there = points(axes)
    for pair in [*last[["mad", "entropy"]].to_numpy(), (UNIFORM, 1)]:
        assert np.isclose(there, pair, atol=1e-6).all(1).any()


def test_maps_are_sorted_heads_averaged_over_seeds(tables, drawn):
    heads = tables[1]
    *panels, _ = drawn["heads_by_layer"].figure.axes
    assert [axes.get_title() for axes in panels] == list(styles(tables[0]))
    last = heads[(heads.epoch == 4) & (heads.condition == "+cutmix")].sort_values(["seed", "layer", "head"])
    expected = np.sort(last["mad"].to_numpy().reshape(3, 4, 3), axis=2).mean(0)
    (axes,) = [axes for axes in panels if axes.get_title() == "+cutmix"]
    np.testing.assert_allclose(axes.images[0].get_array(), expected)


def test_effects_are_where_the_means_say(tables, drawn):
    table = tables[0]
    axes = drawn["effects"].figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    expected = table.mad_min[table.cutmix].mean() - table.mad_min[~table.cutmix].mean()
    assert np.isclose(points(axes), (expected, names.index("cutmix"))).all(1).any()


def test_no_figure_of_effects_without_a_factorial_design(tables):
    table, heads = tables
    table = table[table.condition.isin(["baseline", "modern"])]
    heads = heads[heads.condition.isin(["baseline", "modern"])]
    assert "effects" not in [each.name for each in draw(table, table, heads, "grid")]


def test_without_a_known_grid_there_is_no_reference(tables):
    table, heads = tables
    table = table.assign(uniform_mad=np.nan)
    (by_depth, *_) = draw(table, table, heads, "patches")
    (axes,) = by_depth.figure.axes
    assert REFERENCE_COLOUR not in [line.get_color() for line in axes.lines]
    assert "uniform" not in by_depth.svg().decode() and axes.get_ylabel() == "MAD (patches)"


def test_unfinished_runs_are_in_the_curves_only(tables):
    table, heads = tables
    counted = table[table.condition == "baseline"]
    by_depth, _, curves, *_ = draw(table, counted, heads, "grid")
    look = styles(table)
    colours = [{line.get_color() for line in each.figure.axes[0].lines} for each in (by_depth, curves)]
    assert look["modern"].colour not in colours[0] and look["modern"].colour in colours[1]


def test_svg_is_the_same_each_time_and_has_no_date(tables, drawn):
    table, heads = tables
    again = {each.name: each for each in draw(table, table, heads, "grid")}
    for name, each in drawn.items():
        assert each.svg() == again[name].svg()
        assert b"<dc:date>" not in each.svg() and b"Matplotlib v" not in each.svg()
        assert each.png().startswith(b"\x89PNG")


def test_long_and_odd_names_are_whole_and_inside(tables):
    table, heads = tables
    odd = {name: f"_{name} $x^2$ <b>, mixing.probability=0.25, mixing.alpha={name}" for name in ABLATION}
    table, heads = (frame.assign(condition=frame["condition"].map(odd)) for frame in (table, heads))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for each in draw(table, table, heads, "grid"):
            if each.name in ("effects", "heads_by_layer"):
                continue
            svg = each.svg().decode()
            assert svg.count("$x^2$ &lt;b&gt;") == 8
            FigureCanvasAgg(each.figure).draw()
            (legend,) = each.figure.legends
            box, size = legend.get_window_extent(), each.figure.bbox
            assert box.x0 >= 0 and box.x1 <= size.x1 and box.y0 >= 0
            for axes in each.figure.axes:
                assert axes.get_tightbbox().y0 >= box.y1 - 1 and axes.bbox.height > 0.4 * size.height


def test_eight_conditions_look_different():
    rows = pd.DataFrame({"condition": list("abcdefgh"), "cutmix": [True, False] * 4})
    look = styles(rows)
    assert len({style.colour for style in look.values()}) == len({s.marker for s in look.values()}) == 8
    assert [style.filled for style in look.values()] == [True, False] * 4


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour):
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    xyz = TO_XYZ @ rgb.clip(0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_colours_differ_for_colour_blind_readers_too(vision):
    seen = [lab(np.array(VISION[vision]) @ linear(colour)) for colour in (*COLOURS, REFERENCE_COLOUR)]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15


@pytest.mark.parametrize("page", ["#ffffff", "#16181d"])
def test_colours_stand_out_from_light_and_dark_pages(page):
    def luminance(colour):
        return TO_XYZ[1] @ linear(colour) + 0.05

    for colour in (*COLOURS, REFERENCE_COLOUR):
        light, dark = sorted((luminance(colour), luminance(page)), reverse=True)
        assert light / dark > 2.2
