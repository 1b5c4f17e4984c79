"""What the tests of several rooms share."""

import pytest
import torch
from lightning.pytorch import Trainer

from tests import blobs
from vitlocal.data import NPZ


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors: a second thread costs more than it gives, and test processes run side by side."""
    torch.set_num_threads(1)


@pytest.fixture
def npz_file(tmp_path):
    """The file of ``tests/blobs.py``."""
    return blobs.write(tmp_path / "blobs.npz")


@pytest.fixture
def small_data(npz_file):
    """The data module of ``npz_file``."""
    return NPZ(path=str(npz_file), batch_size=8)


@pytest.fixture
def make_trainer(tmp_path):
    """A quiet CPU trainer that writes below the test's own folder."""

    def make(**options):
        defaults = {
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "max_epochs": 1,
            "default_root_dir": tmp_path,
        }
        return Trainer(**(defaults | options))

    return make
