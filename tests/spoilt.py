"""Small data sets and a checkpoint to spoil, and crafted files that would act if they were unpickled."""

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vitlocal.cli import main

QUIET = [
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.max_epochs=1",
]
SMALL = [
    "--model.network.embed_dim=16",
    "--model.network.depth=1",
    "--model.network.num_heads=2",
    "--data.batch_size=8",
]


class Crafted:
    """Pickled, it makes a file called ``executed`` in the working folder of whoever unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("executed",))


def blobs(path: Path, **changes: np.ndarray | None) -> Path:
    """An .npz file, two classes of 8x8 grey images; ``changes`` replace its arrays, None leaves one out."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray | None] = {}
    for split, count in (("train", 16), ("val", 8)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8) % 2
    kept = {name: array for name, array in (arrays | changes).items() if array is not None}
    np.savez(path, **kept)  # type: ignore[arg-type]
    return path


def image_folder(path: Path) -> Path:
    """An image folder of two classes, 8x8 colour images."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            (path / split / label).mkdir(parents=True)
            for number in range(2):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path / split / label / f"{number}.png")
    return path


def tiny_imagenet(path: Path) -> Path:
    """A Tiny-ImageNet of two classes and three images."""
    picture = path.with_suffix(".jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(picture)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("t/wnids.txt", "n01\nn02\n")
        archive.writestr("t/val/val_annotations.txt", "v.JPEG\tn01\t0\t0\t1\t1\n")
        for name in ("val/images/v", "train/n01/images/a", "train/n02/images/b"):
            archive.writestr(f"t/{name}.JPEG", picture.read_bytes())
    picture.unlink()
    return path


def checkpoint(path: Path, **changes: object) -> Path:
    """What a training of :func:`on_blobs` leaves as a checkpoint; ``changes`` replace its parts."""
    main(on_blobs(path.parent, "--trainer.logger=false", "--locality=null"))
    (written,) = path.parent.glob("lightning_logs/*/version_0/checkpoints/last.ckpt")
    content = torch.load(written, weights_only=True)
    torch.save(content | changes, path)
    shutil.rmtree(path.parent / "lightning_logs")
    return path


def on_blobs(folder: Path, *words: str, command: str = "fit") -> list[str]:
    """A command on :func:`blobs`."""
    path = folder / "blobs.npz"
    data = blobs(path) if not path.exists() else path
    return [command, "--config", "npz.yaml", f"--data.path={data}", *SMALL, *QUIET, *words]


def cut(path: Path, share: float = 0.5) -> None:
    """Keep only the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def object_array() -> np.ndarray:
    """One that NumPy can only store as a pickle."""
    return np.array([Crafted()] * 16, dtype=object)
