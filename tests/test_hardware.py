import pytest
import torch

from vitlocal.hardware import precision


@pytest.mark.parametrize(("amx", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_on_a_cpu_by_its_matrix_units(monkeypatch, amx, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr("vitlocal.hardware.cpu_has_amx", lambda: amx)
    assert precision("auto") == precision("cpu") == expected
    assert precision("tpu") == "32-true"


@pytest.mark.parametrize(("ampere", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_on_a_gpu_by_its_generation(monkeypatch, ampere, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: ampere)
    monkeypatch.setattr("vitlocal.hardware.cpu_has_amx", lambda: False)
    assert precision("auto") == precision("gpu") == precision("cuda") == expected
    assert precision("cpu") == "32-true"


def test_where_nothing_is_known_of_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert precision("auto") == precision("mps") == "32-true"
