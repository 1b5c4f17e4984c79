import numpy as np
import pytest
import torch

from vitlocal.inspection.figures import Seen, entropy_mad_figure, maps_figure, rollout_figure
from vitlocal.observing.hooks import Place

WHOLE = [Place(0, (0, 1, 2)), Place(1, (0, 1, 2))]


def seen(name="photo.png", channels=3, grid=(2, 3)):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (channels, 8, 12), dtype=torch.uint8, generator=generator)
    maps = [torch.rand(3, *grid, generator=generator) for _ in range(2)]
    return Seen(name, image, maps, torch.rand(grid, generator=generator))


def test_maps_are_numbered_as_their_layers_and_heads():
    figure = maps_figure(seen(), [Place(4, (0, 2, 5)), Place(7, (0, 2, 5))], of_class=False)
    image, maps, bar = figure.axes
    assert image.get_title() == "photo.png"
    assert [label.get_text() for label in maps.get_yticklabels()] == ["4", "7"]
    assert [label.get_text() for label in maps.get_xticklabels()] == ["0", "2", "5"]
    assert len(image.collections) == len(maps.collections) == 1
    assert "framed patch" in bar.get_ylabel()


def test_maps_of_the_class_token_frame_no_patch():
    image, maps, bar = maps_figure(seen(), WHOLE, of_class=True).axes
    assert not image.collections and not maps.collections
    assert "class token" in bar.get_ylabel()


@pytest.mark.parametrize("channels", [1, 3])
def test_rollout_is_drawn_in_shares_of_an_even_one(channels):
    given = seen(channels=channels)
    figure = rollout_figure(given, of_class=True)
    left, right, bar = figure.axes
    (drawn,) = right.images
    share = (given.rollout / given.rollout.mean()).numpy()
    np.testing.assert_allclose(drawn.get_array(), share, rtol=1e-6)
    assert drawn.get_clim() == (0, max(2, share.max()))
    assert left.images[0].get_extent() == drawn.get_extent()
    assert "class token" in right.get_title()
    assert bar.lines[0].get_ydata() == [1, 1]
    assert "mean of the patches" in rollout_figure(given, of_class=False).axes[1].get_title()


def test_names_are_drawn_as_they_are_and_long_ones_cut_short(tmp_path):
    for name in ("$x_$", "a\udcffb", "folder/" + 300 * "n" + "7.png"):
        for figure in (rollout_figure(seen(name), True), maps_figure(seen(name), WHOLE, False)):
            figure.savefig(tmp_path / "figure.png")
            title = figure.axes[0].title
            assert title.get_window_extent().x0 >= 0
            if len(name) > 300:
                assert title.get_text().startswith("…") and title.get_text().endswith("n7.png")
    assert rollout_figure(seen("$x_$"), True).axes[0].get_title() == "$x_$"


@pytest.mark.parametrize("depth", [1, 3])
def test_each_head_is_a_dot_coloured_by_its_layer(depth):
    layers = [
        {"mad": [0.1 + 0.01 * layer, 0.3], "entropy": [0.5, 0.9 - 0.01 * layer]} for layer in range(depth)
    ]
    figure = entropy_mad_figure(
        layers, [Place(layer, (0, 1)) for layer in range(depth)], "distance", {"mad": 0.4, "entropy": 1.0}
    )
    axes = figure.axes[0]
    (dots,) = axes.collections
    expected = [pair for layer in layers for pair in zip(layer["mad"], layer["entropy"], strict=True)]
    np.testing.assert_allclose(dots.get_offsets(), expected)
    assert dots.get_array().tolist() == [layer for layer in range(depth) for _ in range(2)]
    (cross,) = axes.lines
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (0.4, 1.0)
    assert axes.get_xlabel() == "distance"
