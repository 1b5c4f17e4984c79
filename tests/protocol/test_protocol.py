import itertools

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from tests.protocol.helpers import make_batch
from vitlocal.errors import InputError
from vitlocal.protocol import (
    Augmentation,
    AutoAugment,
    ColorJitter,
    CropFlip,
    CutMix,
    Cutout,
    LabelSmoothing,
    MixUp,
    Protocol,
    generator_for,
)

MODERN = {
    "crop_flip": {"padding": 4},
    "photometric": {"class_path": "AutoAugment"},
    "mixing": {"class_path": "CutMix", "init_args": {"alpha": 1.0}},
    "label_smoothing": {"epsilon": 0.1},
}
COMPONENTS = (
    CropFlip(2),
    AutoAugment(),
    ColorJitter(),
    CutMix(),
    CutMix(box="batch", probability=1.0),
    MixUp(),
    Cutout(4),
    LabelSmoothing(),
)


class Negative(Augmentation):
    """A user's own."""

    def apply(self, batch, generator):
        batch["image"] = 255 - batch["image"]


def parser():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Protocol, "protocol")
    return parser


def parse(tmp_path, *arguments, config=MODERN):
    path = tmp_path / "protocol.yaml"
    path.write_text(yaml.safe_dump({"protocol": config}))
    made = parser()
    return made.instantiate(made.parse_args([f"--config={path}", *arguments])).protocol


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("pair", list(itertools.combinations_with_replacement(COMPONENTS, 2)))
def test_every_pair_keeps_the_batch_whole(pair, batch_size, channels):
    batch = make_batch(batch_size, channels)
    label, index = batch["label"].clone(), batch["index"].clone()
    for component in pair:
        component.apply(batch, generator_for(0, type(component).__name__, 0, 0, 5))
    torch.testing.assert_close(batch["target"].sum(dim=1), torch.ones(batch_size), rtol=0, atol=1e-6)
    assert batch["target"].dtype == torch.float32
    assert (batch["target"] >= 0).all()
    assert torch.equal(batch["label"], label)
    assert torch.equal(batch["index"], index)
    assert batch["image"].dtype == torch.uint8
    assert batch["image"].shape == (batch_size, channels, 12, 10)


@pytest.mark.parametrize(
    ("protocol", "name"),
    [
        (Protocol(crop_flip=None), "none"),
        (Protocol(), "baseline"),
        (Protocol(CropFlip(), AutoAugment(), CutMix(), LabelSmoothing()), "modern"),
        (Protocol(CropFlip(), ColorJitter(), CutMix(), LabelSmoothing()), "modern"),
        (Protocol(mixing=CutMix()), "cropflip+cutmix"),
        (
            Protocol(CropFlip(), AutoAugment(), MixUp(), LabelSmoothing()),
            "cropflip+autoaugment+mixup+labelsmoothing",
        ),
        (Protocol(None, AutoAugment(), CutMix(), LabelSmoothing()), "autoaugment+cutmix+labelsmoothing"),
        (Protocol(None, None, Cutout()), "cutout"),
    ],
)
def test_name(protocol, name):
    assert protocol.name == name


def test_callbacks_are_in_order():
    components = [CropFlip(), AutoAugment(), CutMix(), LabelSmoothing()]
    assert Protocol(*components).callbacks() == components
    assert Protocol(None, components[1], None, components[3]).callbacks() == [components[1], components[3]]


def test_yaml(tmp_path):
    protocol = parse(tmp_path)
    assert [type(c) for c in protocol.callbacks()] == [CropFlip, AutoAugment, CutMix, LabelSmoothing]
    assert protocol.mixing.probability == 0.5


def test_flags_change_one_component(tmp_path):
    assert parse(tmp_path, "--protocol.mixing=null").name == "cropflip+autoaugment+labelsmoothing"
    assert isinstance(parse(tmp_path, "--protocol.mixing=MixUp").mixing, MixUp)
    assert parse(tmp_path, "--protocol.mixing.alpha=0.5").mixing.alpha == 0.5
    assert parse(tmp_path, "--protocol.crop_flip.padding=2").crop_flip.padding == 2
    assert parse(tmp_path, "--protocol.photometric=ColorJitter").name == "modern"
    assert isinstance(parse(tmp_path, "--protocol.photometric=Negative").photometric, Negative)


def test_defaults_are_the_baseline(tmp_path):
    assert parse(tmp_path, config={}).name == "baseline"
    assert parse(tmp_path, "--protocol.crop_flip=null", config={}).name == "none"


def test_resolved_config_gives_the_same_protocol(tmp_path):
    made = parser()
    (tmp_path / "modern.yaml").write_text(yaml.safe_dump({"protocol": MODERN}))
    first = made.parse_args([f"--config={tmp_path / 'modern.yaml'}", "--protocol.label_smoothing=null"])
    made.save(first, tmp_path / "resolved.yaml", skip_unset=False)
    again = made.parse_args([f"--config={tmp_path / 'resolved.yaml'}"])
    assert again.protocol == first.protocol


def test_a_wrong_value_is_named(tmp_path):
    """jsonargparse wraps what an optional component raises; the sentence is in the cause."""
    with pytest.raises(ValueError, match="Union") as caught:
        parse(tmp_path, "--protocol.mixing.alpha=-1.0")
    assert isinstance(caught.value.__cause__, InputError)
    assert str(caught.value.__cause__) == "CutMix: alpha=-1.0 is given, but it must be a number above 0."
