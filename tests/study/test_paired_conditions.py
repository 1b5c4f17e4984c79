"""The conditions of one seed begin with the same weights and see the images in the same order."""

import pytest
import torch
from lightning.pytorch import Callback

from tests import blobs

CONDITIONS = {
    "baseline": (),
    "cutmix": ("--protocol.mixing=CutMix", "--protocol.mixing.probability=1"),
    "everything": ("--config=modern.yaml", "--protocol.crop_flip.padding=1"),
}


class Recorder(Callback):
    """The indices of the images of every batch, in their order."""

    seen: list[int]

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        type(self).seen += batch["index"].tolist()


@pytest.fixture
def run(tmp_path, npz_file):
    """Weights before training, since nothing is learned, and the order of the images."""

    def fit(condition, seed):
        Recorder.seen = []
        words = (
            f"--seed_everything={seed}",
            "--model.lr=0",
            "--model.network.patch_size=2",
            *CONDITIONS[condition],
        )
        recorder = f"--trainer.callbacks+={__name__}.Recorder"
        folder = tmp_path / f"{condition}-{seed}"
        blobs.fit(folder, npz_file, *words, recorder)
        (checkpoint,) = folder.glob("lightning_logs/*/version_0/checkpoints/last.ckpt")
        return torch.load(checkpoint, weights_only=True)["state_dict"], Recorder.seen

    return fit


def test_same_weights_and_same_order(run):
    weights, order = run("baseline", 3)
    assert len(order) == 2 * 24 and order[:24] != order[24:]  # two epochs, each in its own order
    for condition in ("cutmix", "everything"):
        of_condition, other_order = run(condition, 3)
        assert other_order == order
        assert of_condition.keys() == weights.keys()
        assert all(torch.equal(value, weights[name]) for name, value in of_condition.items())
    other_seed, order_of_seed = run("baseline", 4)
    assert order_of_seed != order
    assert any(not torch.equal(value, weights[name]) for name, value in other_seed.items())
