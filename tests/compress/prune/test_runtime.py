"""What runs a network, and how long it takes."""

import sys

import pytest
import torch

from vitlocal.compress.prune import runtime
from vitlocal.compress.prune.runtime import Setting, medians
from vitlocal.errors import InputError
from vitlocal.models import VisionTransformer
from vitlocal.models.pruning import prune


def test_medians_are_of_calls_in_turn():
    calls = []

    class Noted(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            assert torch.is_inference_mode_enabled()
            calls.append((self.name, torch.get_num_threads(), torch.is_autocast_enabled("cpu")))

    before = torch.get_num_threads()
    setting = Setting("cpu", 1, "bf16-mixed", 2)
    found = medians([(Noted("a"), torch.zeros(1)), (Noted("b"), torch.zeros(1))], setting, 4, "test")
    assert [name for name, *_ in calls] == ["a"] * runtime.WARM_UP + ["b"] * runtime.WARM_UP + ["a", "b"] * 4
    assert {how for _, *how in map(list, calls) for how in [tuple(how)]} == {(2, True)}
    assert len(found) == 2 and all(value > 0 for value in found) and torch.get_num_threads() == before


@pytest.fixture
def networks():
    """The whole network, and one with a head, features and a branch less."""
    torch.manual_seed(0)
    whole, pruned = (
        VisionTransformer(img_size=8, embed_dim=16, depth=2, num_heads=2).eval() for _ in range(2)
    )
    prune(list(pruned.blocks), [[1], []], [range(5), range(32)])
    return whole, pruned


@pytest.mark.parametrize("images", [1, 3])
def test_onnx_runtime_runs_networks_and_their_parts(networks, images):
    whole, pruned = networks
    x, tokens = torch.randn(images, 3, 8, 8), torch.randn(images, 5, 16)
    setting = Setting("cpu", images, "32-true", 1, "onnx")
    for module, given in ((whole, x), (pruned, x), (pruned.blocks[0], tokens)):
        with torch.no_grad():
            expected = module(given)
        torch.testing.assert_close(runtime._ready(module, given, setting)(), expected, rtol=1e-4, atol=1e-5)
    assert all(value > 0 for value in medians([(pruned, x)], setting, 2, "test"))


def test_each_of_many_modules_of_one_class_is_compiled(monkeypatch):
    """By a compiler that notes what it was given; PyTorch's own limit is eight."""
    compiled = []

    def compiler(graph, inputs):
        compiled.append(graph)
        return graph.forward

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **how: real(module, backend=compiler, **how))
    torch._dynamo.reset()
    layers = [(torch.nn.Linear(4, width), torch.zeros(2, 4)) for width in range(1, 13)]
    found = medians(layers, Setting("cpu", 2, "32-true", 1, "compile"), 2, "test")
    assert len(compiled) == len(found) == 12


@pytest.mark.slow
def test_torch_compile_runs_networks_and_their_parts(networks):
    whole, pruned = networks
    x = torch.randn(2, 3, 8, 8)
    setting = Setting("cpu", 2, "32-true", 1, "compile")
    for module, given in ((pruned, x), (whole.blocks[0], torch.randn(2, 5, 16))):
        with torch.no_grad():
            expected = module(given)
        with runtime._used(setting):
            torch.testing.assert_close(
                runtime._ready(module, given, setting)(), expected, rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            Setting("cuda", 1, "32-true", 1, "onnx"),
            "device is cuda, and ONNX Runtime is measured with cpu only",
        ),
        (
            Setting("cpu", 1, "bf16-mixed", 1, "onnx"),
            "precision is bf16-mixed, and ONNX Runtime is measured with 32-true only: give precision=32-true",
        ),
    ],
)
def test_what_onnx_runtime_is_not_measured_with(setting, sentence):
    with pytest.raises(InputError, match=sentence):
        setting.check()


def test_without_onnx_runtime(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        InputError, match=r"a latency of ONNX Runtime needs onnxruntime .*vitlocal\[compress\]"
    ):
        Setting("cpu", 1, "32-true", 1, "onnx").check()
    Setting("cpu", 1, "32-true", 1).check()


def test_what_can_not_be_compiled(monkeypatch):
    def fails(module, **how):
        raise RuntimeError("no compiler\nis there")

    monkeypatch.setattr(torch, "compile", fails)
    call = torch.nn.Identity(), torch.zeros(1)
    with pytest.raises(
        InputError, match=r"torch.compile can't run the network \(no compiler\): give another"
    ):
        medians([call], Setting("cpu", 1, "32-true", 1, "compile"), 1, "test")
