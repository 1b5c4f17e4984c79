import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tests.heads.toy import DEPTH, HEADS, ToyModule, loader
from vitlocal.heads.figures import AttentionMaps, attention_figure, centre_patch, depth_figure
from vitlocal.heads.observation import Observation


def test_centre_patch():
    assert centre_patch((8, 8)) == (4, 4)
    assert centre_patch((3, 5)) == (1, 2)
    assert centre_patch((1, 1)) == (0, 0)


@pytest.mark.parametrize("chosen", [None, [torch.tensor([1, 4, 5])]], ids=["all", "chosen"])
def test_maps_of_the_first_images_observed(chosen):
    module, batches = ToyModule().eval(), list(loader(6))  # of 4 and 2 images
    observation = Observation(module, module.device, chosen=chosen, maps=2)
    for batch in batches:
        with torch.no_grad(), observation.batch(batch):
            module(batch["image"])
    images = torch.cat([batch["image"] for batch in batches])
    seen = []
    module.network.layers[2].register_forward_hook(
        lambda layer, inputs, output: seen.append(layer.probabilities(*inputs))
    )
    module(images)
    assert len(observation.maps) == 2
    for maps, position in zip(observation.maps, [0, 1] if chosen is None else [1, 4], strict=True):
        assert torch.equal(maps.image, images[position])
        assert len(maps.layers) == DEPTH and maps.layers[2].shape == (HEADS, 2, 3)
        # The centre of a 2x3 grid is row 1, column 1: the fifth patch, after the class token.
        torch.testing.assert_close(maps.layers[2].flatten(1), seen[0][position, :, 5, 1:])


@pytest.mark.parametrize("channels", [1, 3])
def test_attention_figure_puts_each_head_in_its_place(channels):
    layers = [torch.rand(2, 2, 3) / 6, torch.rand(1, 2, 3) / 6]  # layers may differ in their heads
    image = torch.randint(0, 256, (channels, 8, 6), dtype=torch.uint8)
    figure = attention_figure(AttentionMaps(image, layers))
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
    figure = depth_figure([[0.1, 0.3], [0.2, 0.6]], "distance", 0.4)
    (axes,) = figure.axes
    lines = [line.get_xydata().tolist() for line in axes.lines]
    assert [[0, 0.1], [0, 0.3], [1, 0.2], [1, 0.6]] in lines
    assert [[0, 0.2], [1, 0.4]] in lines  # the layers' means
    assert [line[1] for line in lines[-1]] == [0.4, 0.4]
    assert axes.get_ylim()[1] > 0.6 and axes.get_ylabel() == "distance"


def test_depth_figure_of_zeros():
    assert depth_figure([[0.0]], "distance of a 1x1 grid", 0.0).axes[0].get_ylim() == (0, 1)
