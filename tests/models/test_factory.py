"""Networks and their attention from settings: what they choose, and what is refused."""

from functools import partial

import pytest
import torch
from torch import nn

from vitlocal.errors import InputError
from vitlocal.models import ClippedSoftmax, Gated, VisionTransformer, make_network, network_settings

SMALL = {"img_size": (8, 8), "embed_dim": 12, "depth": 2, "num_heads": 3}


@pytest.mark.parametrize(
    ("attention", "sentence"),
    [
        ("linear", "attention is 'linear': give Softmax, ClippedSoftmax, Gated"),
        (partial(ClippedSoftmax, gamma=-0.1, alpha=0.5), "is -0.1 and alpha is 0.5: give one of them"),
        (partial(ClippedSoftmax, gamma=0.1), "gamma of ClippedSoftmax is 0.1: it must be from -1 to 0"),
        (partial(ClippedSoftmax, gamma=float("nan")), "gamma of ClippedSoftmax is nan"),
        (partial(ClippedSoftmax, alpha=-1.0), "alpha of ClippedSoftmax is -1.0"),
        (partial(ClippedSoftmax, zeta=0.9), "zeta of ClippedSoftmax is 0.9"),
        (partial(ClippedSoftmax, zeta=float("inf")), "zeta of ClippedSoftmax is inf"),
        (partial(Gated, gate="wide"), "gate of Gated is 'wide': it must be one of linear, mlp, all_heads"),
        (partial(Gated, pi_init=1.0), "pi_init of Gated is 1.0: it must be above 0 and below 1"),
        (partial(Gated, pi_init=0.0), "pi_init of Gated is 0.0"),
        (partial(Gated, gate="mlp", hidden=0), "hidden of Gated is 0"),
        (partial(Gated, hidden=8), "hidden of Gated is 8 but gate is linear: give gate=mlp"),
    ],
)
def test_wrong_arguments_of_attention_are_named(attention, sentence):
    with pytest.raises(InputError, match=sentence):
        VisionTransformer(**SMALL, attention=attention)


def test_an_alpha_of_more_than_the_tokens_is_refused():
    network = VisionTransformer(**SMALL, attention=partial(ClippedSoftmax, alpha=6.0))
    with pytest.raises(InputError, match="at most the number of tokens, 5"):
        network(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("attention", [ClippedSoftmax, Gated])
def test_weights_of_softmax_load(attention):
    """Clipping adds no parameters, gates add only their own."""
    torch.manual_seed(0)
    plain = VisionTransformer(**SMALL)
    missing, extra = VisionTransformer(**SMALL, attention=attention).load_state_dict(
        plain.state_dict(), strict=False
    )
    assert not extra
    assert {name.split(".")[3] for name in missing} == ({"gate"} if attention is Gated else set())


SAME = {
    "partials": partial(VisionTransformer, embed_dim=12, num_heads=3, attention=partial(Gated, gate="mlp")),
    "settings": {
        "class_path": "VisionTransformer",
        "init_args": {
            "embed_dim": 12,
            "num_heads": 3,
            "attention": {"class_path": "Gated", "init_args": {"gate": "mlp"}},
        },
    },
    "arguments alone": {
        "embed_dim": 12,
        "num_heads": 3,
        "attention": {"class_path": "vitlocal.models.attention.gated.Gated", "init_args": {"gate": "mlp"}},
    },
}


@pytest.mark.parametrize("given", SAME.values(), ids=SAME)
def test_settings_are_the_same_however_given_and_make_the_network(given):
    settings = network_settings(given)
    assert settings["class_path"].endswith(".VisionTransformer")
    attention = settings["init_args"]["attention"]
    own = {"gate": "mlp", "hidden": 4, "pi_init": 0.5, "head_dim": None}
    assert attention["class_path"].endswith(".Gated") and attention["init_args"] == own
    assert network_settings(settings) == settings
    network = make_network(settings, img_size=(12, 8), in_chans=1, num_classes=7)
    assert network.geometry.size == (3, 2) and network.head.out_features == 7
    assert len(network.blocks[0].attn.gate.layers) == 3 and network.head.in_features == 12


class Linear(nn.Module):
    """A network that takes one fact of the data alone."""

    def __init__(self, num_classes: int, features: int = 5):
        super().__init__()
        self.layer = nn.Linear(features, num_classes)


def test_another_network_gets_the_facts_that_it_takes():
    settings = network_settings(partial(Linear, features=3))
    network = make_network(settings, img_size=(12, 8), in_chans=1, num_classes=7)
    assert network.layer.weight.shape == (7, 3)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("foo", "network foo: foo is no class path, nor one of .* VisionTransformer; give"),
        ("no_such.Module", "No module named 'no_such'"),
        ({"widht": 3}, "Option 'widht' is not accepted"),
        ({"attention": "Foo"}, "Foo is no class path, nor one of ClippedSoftmax, Gated, Softmax"),
        ({"embed_dim": "big"}, "network vitlocal.models.vit.VisionTransformer: .*big"),
        (lambda **facts: None, "give a class, functools.partial of one"),
    ],
)
def test_what_is_no_network_is_refused_in_a_sentence(given, sentence):
    with pytest.raises(InputError, match=sentence):
        network_settings(given)
