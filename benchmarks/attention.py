"""python benchmarks/attention.py"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from side_by_side import Benchmark
from torch import Tensor, nn

from vitlocal.models import ClippedSoftmax, Gated, Softmax

SIZES = {65: 128, 257: 32}  # tokens, and images in a batch


class Formula(ClippedSoftmax):
    """Clipped softmax as the paper writes it and its authors' code computes it."""

    def _mix(self, x: Tensor) -> Tensor:
        query, key, value = self.split(self.qkv(x))
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        weights = torch.clip((self.zeta - self.gamma) * scores.softmax(-1) + self.gamma, 0, 1)
        return (weights @ value).transpose(1, 2)


def kept(run: Callable[[], Any]) -> float:
    """MiB of tensors that a forward keeps for its backward pass, weights aside."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = run()  # alive until all is counted, so that no memory is used twice
    del output
    return sum(sizes.values()) / 2**20


def main() -> None:
    """Time a forward and backward pass of one layer."""
    parser = argparse.ArgumentParser()
    for name, value in (("width", 192), ("heads", 12), ("passes", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    bench = Benchmark("attention", "Attention layers, forward and backward", parser)
    args = bench.args

    for tokens, batch in SIZES.items():
        torch.manual_seed(0)
        shape, gamma = (args.width, args.heads), -0.5 / tokens
        layers: dict[str, nn.Module] = {
            "softmax": Softmax(*shape),
            "clipped softmax": ClippedSoftmax(*shape, gamma=gamma),
            "clipped softmax, the formula": Formula(*shape, gamma=gamma),
            "gated, linear": Gated(*shape),
            "gated, mlp": Gated(*shape, gate="mlp"),
            "gated, all_heads_linear": Gated(*shape, gate="all_heads_linear"),
        }
        for layer in layers.values():
            layer.to(bench.device)
        if args.compile:
            for name in ("softmax", "clipped softmax", "gated, linear"):
                layers[f"{name}, compiled"] = torch.compile(layers[name])
        x = torch.randn(batch, tokens, args.width, device=bench.device, requires_grad=True)
        towards = torch.randn_like(x)
        for dtype, words in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):

            def forward(layer: nn.Module, x: Tensor = x, dtype: torch.dtype = dtype) -> Tensor:
                with torch.autocast(x.device.type, dtype, enabled=dtype == torch.bfloat16):
                    return layer(x)

            def passes(layer: nn.Module, towards: Tensor = towards, forward: Any = forward) -> None:
                for _ in range(args.passes):
                    output = forward(layer)
                    output.backward(towards.to(output.dtype))

            bench.compare(
                f"{tokens} tokens, width {args.width}, {args.heads} heads, batch {batch}, {words}",
                {name: lambda layer=layer: passes(layer) for name, layer in layers.items()},
                args.passes * batch,
                "images",
                {
                    name: {"kept for the backward pass, MiB": round(kept(lambda layer=layer: forward(layer)))}
                    for name, layer in layers.items()
                    if not name.endswith("compiled")
                },
            )
    bench.finish()


if __name__ == "__main__":
    main()
