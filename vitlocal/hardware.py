"""What the hardware is good at."""

import torch

from vitlocal.internals import cpu_has_amx


def precision(accelerator: str = "auto") -> str:
    """Return the trainer's precision that is fastest on this machine without changing what is learned.

    Args:
        accelerator: the trainer's.

    Returns:
        ``bf16-mixed`` where bfloat16 matrix products have hardware of their own: NVIDIA GPUs from Ampere on,
        and CPUs with AMX (Intel Xeon from Sapphire Rapids on); else ``32-true``.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator in ("auto", "cpu") and not torch.backends.mps.is_available():
        fast = cpu_has_amx()
    else:
        fast = False
    return "bf16-mixed" if fast else "32-true"
