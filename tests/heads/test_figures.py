import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tests.heads.toy import DEPTH, HEADS, ToyModule, loader
from vitlocal.heads import LocalityMonitor
from vitlocal.heads.collector import HeadCollector
from vitlocal.heads.figures import (
    AttentionMaps,
    attention_figure,
    centre_patch,
    depth_figure,
    training_figure,
)
from vitlocal.observing.hooks import Place


def test_centre_patch():
    assert centre_patch((8, 8)) == (4, 4)
    assert centre_patch((3, 5)) == (1, 2)
    assert centre_patch((1, 1)) == (0, 0)


@pytest.mark.parametrize("chosen", [None, [torch.tensor([1, 4, 5])]], ids=["all", "chosen"])
def test_maps_of_the_first_images_observed(chosen):
    module, batches = ToyModule().eval(), list(loader(6))  # of 4 and 2 images
    collector = HeadCollector(module, module.device, chosen=chosen, maps=2)
    for batch in batches:
        with torch.no_grad(), collector.batch(batch["image"], batch["index"]):
            module(batch["image"])
    images = torch.cat([batch["image"] for batch in batches])
    seen = []
    module.network.layers[2].register_forward_hook(
        lambda layer, inputs, output: seen.append(layer.probabilities(*inputs))
    )
    module(images)
    assert len(collector.maps) == 2
    for maps, position in zip(collector.maps, [0, 1] if chosen is None else [1, 4], strict=True):
        assert torch.equal(maps.image, images[position])
        assert len(maps.layers) == DEPTH and maps.layers[2].shape == (HEADS, 2, 3)
        # The centre of a 2x3 grid is row 1, column 1: the fifth patch, after the class token.
        torch.testing.assert_close(maps.layers[2].flatten(1), seen[0][position, :, 5, 1:])


@pytest.mark.parametrize("channels", [1, 3])
def test_attention_figure_puts_each_head_in_its_place(channels):
    layers = [torch.rand(2, 2, 3) / 6, torch.rand(1, 2, 3) / 6]  # layers may differ in their heads
    image = torch.randint(0, 256, (channels, 8, 6), dtype=torch.uint8)
    figure = attention_figure(AttentionMaps(image, layers), [Place(0, (0, 1)), Place(1, (0,))])
    left, right = figure.axes[:2]
    drawn = right.images[0].get_array()
    for layer, weights in enumerate(layers):
        for head, expected in enumerate(weights.clamp(min=0.1 / 6)):
            block = drawn[3 * layer : 3 * layer + 2, 4 * head : 4 * head + 3]
            np.testing.assert_allclose(block, expected, rtol=1e-6)
    assert np.ma.masked_invalid(drawn).mask[3:, 4:].all()  # there is no second head in the second layer
    assert [label.get_text() for label in right.get_xticklabels()] == ["0", "1"]
    assert _frames(left) == [(1.5, 3.5, 2, 4)]  # pixels 2 to 3 and 4 to 7
    # The centre patch, row 1 and column 1, is framed in every map.
    assert _frames(right) == [(0.5, 0.5, 1, 1), (4.5, 0.5, 1, 1), (0.5, 3.5, 1, 1)]
    # Nothing lies over anything else, or is cut off: no layout engine sees to that.
    canvas = FigureCanvasAgg(figure)
    boxes = [axes.get_tightbbox(canvas.get_renderer()) for axes in figure.axes]
    for number, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def _frames(axes):
    (frames,) = axes.collections
    return [path.get_extents().bounds for path in frames.get_paths()]


def test_depth_figure_draws_every_head_and_the_reference():
    figure = depth_figure([[0.1, 0.3], [0.2, 0.6]], [Place(0, (0, 1)), Place(1, (0, 1))], "distance", 0.4)
    (axes,) = figure.axes
    lines = [line.get_xydata().tolist() for line in axes.lines]
    assert [[0, 0.1], [0, 0.3], [1, 0.2], [1, 0.6]] in lines
    assert [[0, 0.2], [1, 0.4]] in lines  # the layers' means
    assert [line[1] for line in lines[-1]] == [0.4, 0.4]
    assert axes.get_ylim()[1] > 0.6 and axes.get_ylabel() == "distance"


def test_depth_figure_of_zeros():
    figure = depth_figure([[0.0]], [Place(0, (0,))], "distance of a 1x1 grid", 0.0)
    assert figure.axes[0].get_ylim() == (0, 1)


def test_layers_and_heads_that_are_left_are_drawn_by_their_numbers():
    """Of three layers of three heads, the one in the middle went, and heads of the others."""
    places = [Place(0, (0, 2)), Place(2, (2,))]
    (axes,) = depth_figure([[0.1, 0.3], [0.2]], places, "distance", 0.4).axes
    lines = [line.get_xydata().tolist() for line in axes.lines]
    assert [[0, 0.1], [0, 0.3], [2, 0.2]] in lines and [[0, 0.2], [2, 0.2]] in lines
    figure = training_figure({0: [[0.1, 0.3], [0.2]]}, places, "MAD", 0.4)
    named = [text.get_text() for text in figure.axes[0].texts if text.get_text().startswith("layer")]
    assert named == ["layer 0 head 0", "layer 2 head 2", "layer 0 head 2"]
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["0", "2"]
    layers = [torch.rand(2, 2, 3), torch.rand(1, 2, 3)]
    right = attention_figure(AttentionMaps(torch.zeros(1, 8, 6, dtype=torch.uint8), layers), places).axes[1]
    drawn = right.images[0].get_array()
    np.testing.assert_allclose(drawn[3:5, 4:7], layers[1][0].clamp(min=0.1 / 6), rtol=1e-6)
    assert np.ma.masked_invalid(drawn).mask[3:, :3].all()  # layer 2 has no head 0
    assert [label.get_text() for label in right.get_xticklabels()] == ["0", "2"]
    assert [label.get_text() for label in right.get_yticklabels()] == ["0", "2"]


def test_training_figure_has_a_curve_a_head_in_its_layers_colour_and_names_the_lowest():
    rng = np.random.default_rng(0)
    epochs = (0, 2, 5)
    values = {epoch: [list(rng.uniform(0.2, 0.4, heads)) for heads in (2, 3, 1)] for epoch in epochs}
    values[5][1][2], values[5][0][0], values[5][2][0] = 0.01, 0.02, 0.15
    named = [Place(layer, tuple(range(heads))) for layer, heads in enumerate((2, 3, 1))]
    figure = training_figure(values, named, "MAD", 0.418)
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    places = [(layer, head) for layer, heads in enumerate((2, 3, 1)) for head in range(heads)]
    for line, (layer, head) in zip(curves, places, strict=True):
        assert list(line.get_xdata()) == list(epochs)
        assert list(line.get_ydata()) == [values[epoch][layer][head] for epoch in epochs]
    colours = {place: line.get_color() for line, place in zip(curves, places, strict=True)}
    assert colours[1, 0] == colours[1, 2] != colours[0, 0]
    named = [text.get_text() for text in figure.axes[0].texts if text.get_text().startswith("layer")]
    assert named[:3] == ["layer 1 head 2", "layer 0 head 0", "layer 2 head 0"] and len(named) == 4
    canvas = FigureCanvasAgg(figure)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_training_figure_of_the_untrained_network_alone():
    figure = training_figure({0: [[0.4, 0.41]]}, [Place(0, (0, 1))], "MAD", 0.418)
    assert figure.axes[0].get_xlim() == (0, 1)


def test_a_resumed_monitor_draws_the_whole_curves():
    first = LocalityMonitor()
    first._curves = {0: [[0.4]], 1: [[0.3]]}
    second = LocalityMonitor()
    second.load_state_dict(first.state_dict())
    assert second._curves == first._curves
