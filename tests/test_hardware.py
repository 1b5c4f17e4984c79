import sys
from pathlib import Path

import pytest
import torch

from vitlocal.hardware import precision


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc as on Linux")
def test_on_a_cpu_by_its_matrix_units():
    flags = Path("/proc/cpuinfo").read_text().split()
    assert precision("cpu") == ("bf16-mixed" if "amx_bf16" in flags else "32-true")


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="has a GPU")
def test_auto_is_the_cpu_where_there_is_nothing_else():
    assert precision("auto") == precision("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_by_its_generation():
    ampere = torch.cuda.get_device_capability() >= (8, 0)
    assert precision("auto") == precision("cuda") == ("bf16-mixed" if ampere else "32-true")


def test_elsewhere_in_full():
    assert precision("tpu") == "32-true"
