"""What the hardware is, and what it is good at."""

import os
import platform
from pathlib import Path

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


def machine(device: str) -> str:
    """What a machine's speed on a device depends on: the processor and its number of cores, and a GPU's name.

    Args:
        device: such as ``cpu`` or ``cuda``.
    """
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        told = []
    names = [line.partition(":")[2].strip() for line in told if line.startswith("model name")]
    found = f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    if torch.device(device).type == "cuda":
        found = f"{torch.cuda.get_device_name(device)}; {found}"
    return found
