"""The options of attention: what they choose, and what is refused."""

import inspect

import pytest
import torch

from vitlocal.errors import InputError
from vitlocal.models import ClippedSoftmax, VisionTransformer
from vitlocal.models.factory import OPTIONS
from vitlocal.tasks import Classification

SMALL = {"image_size": (8, 8), "width": 12, "depth": 2, "heads": 3}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"attention": "linear"}, "attention is 'linear': it must be one of softmax, clipped_softmax, gated"),
        ({"clip_gamma": -0.1}, "clip_gamma is -0.1 but attention is softmax: give attention=clipped_softmax"),
        ({"attention": "gated", "clip_alpha": 0.5}, "clip_alpha is 0.5 but attention is gated"),
        ({"attention": "gated", "clip_zeta": 1.1}, "clip_zeta is 1.1 but attention is gated"),
        ({"gate": "mlp"}, "gate is mlp but attention is softmax: give attention=gated, or leave gate out"),
        ({"attention": "clipped_softmax", "gate_pi_init": 0.2}, "gate_pi_init is 0.2 but attention is clip"),
        ({"gate_hidden": 8}, "gate_hidden is 8 but attention is softmax"),
        ({"attention": "gated", "gate_hidden": 8}, "gate_hidden is 8 but gate is linear: give gate=mlp"),
        (
            {"attention": "clipped_softmax", "clip_gamma": -0.1, "clip_alpha": 0.5},
            "clip_gamma is -0.1 and clip_alpha is 0.5: give one of them",
        ),
        ({"attention": "clipped_softmax", "clip_gamma": 0.1}, "clip_gamma is 0.1: it must be from -1 to 0"),
        ({"attention": "clipped_softmax", "clip_gamma": float("nan")}, "clip_gamma is nan"),
        ({"attention": "clipped_softmax", "clip_alpha": -1.0}, "clip_alpha is -1.0"),
        ({"attention": "clipped_softmax", "clip_alpha": 6.0}, "from 0 to the number of tokens, 5"),
        ({"attention": "clipped_softmax", "clip_zeta": 0.9}, "clip_zeta is 0.9"),
        ({"attention": "clipped_softmax", "clip_zeta": float("inf")}, "clip_zeta is inf"),
        ({"attention": "gated", "gate": "wide"}, "gate is 'wide': it must be one of linear, mlp, all_heads"),
        ({"attention": "gated", "gate_pi_init": 1.0}, "gate_pi_init is 1.0: it must be above 0 and below 1"),
        ({"attention": "gated", "gate_pi_init": 0.0}, "gate_pi_init is 0.0"),
        ({"attention": "gated", "gate": "mlp", "gate_hidden": 0}, "gate_hidden is 0"),
    ],
)
def test_wrong_options_are_named(wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        VisionTransformer(**SMALL, **wrong)


def test_the_task_has_the_network_s_options_and_defaults():
    network, task = (inspect.signature(kind).parameters for kind in (VisionTransformer, Classification))
    for name in ("attention", *OPTIONS, "patch_norm"):
        assert task[name].default == network[name].default, name
        assert task[name].annotation == network[name].annotation, name
        if name in OPTIONS:
            assert network[name].default == OPTIONS[name][1], name


@pytest.mark.parametrize(
    ("options", "gamma"),
    [({"clip_gamma": -0.03}, -0.03), ({"clip_alpha": 2.0}, -0.4), ({}, -0.1), ({"clip_gamma": 0.0}, 0.0)],
)
def test_gamma(options, gamma):
    network = VisionTransformer(**SMALL, attention="clipped_softmax", clip_zeta=1.2, **options)
    for block in network.blocks:  # 4 patches and the class token
        assert isinstance(block.attn, ClippedSoftmax)
        assert block.attn.gamma == pytest.approx(gamma) and block.attn.zeta == 1.2


@pytest.mark.parametrize("attention", ["clipped_softmax", "gated"])
def test_weights_of_softmax_load(attention):
    """Clipping adds no parameters, gates add only their own."""
    torch.manual_seed(0)
    plain = VisionTransformer(**SMALL)
    missing, extra = VisionTransformer(**SMALL, attention=attention).load_state_dict(
        plain.state_dict(), strict=False
    )
    assert not extra
    assert {name.split(".")[3] for name in missing} == ({"gate"} if attention == "gated" else set())
