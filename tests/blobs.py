"""A tiny data set, and a run on it."""

import numpy as np

from vitlocal import cli


def write(path):
    """3 classes of 8x8 colour images told apart by their brightness, in the MedMNIST layout."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 24), ("val", 13), ("test", 7)):
        labels = np.arange(count) % 3
        noise = rng.integers(0, 60, (count, 8, 8, 3))
        arrays[f"{split}_images"] = (noise + 90 * labels[:, None, None, None]).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    np.savez(path, **arrays)
    return path


def fit(folder, data, *more):
    """Two epochs of a small ViT on a file ``blobs.npz``, with no figures drawn; gives the run's folder."""
    words = ["fit", "--config=npz.yaml", f"--data.path={data}", "--config=baseline.yaml"]
    words += [
        "--data.batch_size=8",
        "--trainer.max_epochs=2",
        "--model.warmup_epochs=0",
        "--model.network.embed_dim=16",
    ]
    words += [
        "--model.network.depth=2",
        "--model.network.num_heads=2",
        "--model.lr=0.02",
        "--trainer.accelerator=cpu",
    ]
    words += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    words += ["--trainer.logger=false"]  # whose figures take half of such a run's time
    cli.main([*words, f"--trainer.default_root_dir={folder}", *more])
    return max(folder.glob("lightning_logs/*/version_*"), key=lambda run: run.stat().st_mtime_ns)
