"""Every wrong input a person can hand over, and what is said of it: one list for the test and the table."""

import contextlib
import errno
import os
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from tests.spoilt import (
    QUIET,
    SMALL,
    Crafted,
    blobs,
    checkpoint,
    cut,
    image_folder,
    object_array,
    on_blobs,
    tiny_imagenet,
)


@dataclass(frozen=True)
class WrongInput:
    """One mistake.

    Attributes:
        what: the mistake, in words.
        make: takes an empty folder that is the working one; gives the command's words.
        says: what the sentence has to name, in this order.
        fault: what goes wrong while the command runs.
        starts: whether a run has begun by then, so that its folder is there.
    """

    what: str
    make: Callable[[Path], list[str]]
    says: tuple[str, ...]
    fault: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    starts: bool = False


def fit(*words: str) -> Callable[[Path], list[str]]:
    """``fit`` on the digits."""
    return lambda folder: ["fit", *QUIET, *words]


def blobs_with(*words: str, command: str = "fit") -> Callable[[Path], list[str]]:
    """A command on :func:`blobs`, for the list."""
    return lambda folder: on_blobs(folder, *words, command=command)


def npz(**changes: np.ndarray | None) -> Callable[[Path], list[str]]:
    """``fit`` on :func:`blobs` with other arrays."""

    def make(folder: Path) -> list[str]:
        blobs(folder / "blobs.npz", **changes)
        return on_blobs(folder)

    return make


def config(content: str | bytes) -> Callable[[Path], list[str]]:
    """``fit --config mine.yaml`` of this content."""

    def make(folder: Path) -> list[str]:
        (folder / "mine.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        return ["fit", *QUIET, "--config", "mine.yaml"]

    return make


def ckpt(make: Callable[[Path], object], command: str = "validate") -> Callable[[Path], list[str]]:
    """A command with ``--ckpt_path=given.ckpt``, which ``make`` makes."""

    def words(folder: Path) -> list[str]:
        make(folder / "given.ckpt")
        return on_blobs(folder, "--ckpt_path=given.ckpt", command=command)

    return words


def images(spoil: Callable[[Path], object]) -> Callable[[Path], list[str]]:
    """``fit`` on an image folder, spoilt."""

    def make(folder: Path) -> list[str]:
        spoil(image_folder(folder / "pets"))
        words = ["--config", "image_folder.yaml", "--data.path=pets", "--data.image_size=8"]
        return ["fit", *words, *SMALL, *QUIET]

    return make


def archive(spoil: Callable[[Path], object]) -> Callable[[Path], list[str]]:
    """``fit`` on Tiny-ImageNet, spoilt."""

    def make(folder: Path) -> list[str]:
        spoil(tiny_imagenet(folder / "tiny.zip"))
        return ["fit", "--config", "tiny_imagenet.yaml", "--data.path=tiny.zip", *SMALL, *QUIET]

    return make


def truncated_npz(folder: Path) -> list[str]:
    """``fit`` on the first half of :func:`blobs`."""
    words = on_blobs(folder)
    cut(folder / "blobs.npz")
    return words


def occupied(folder: Path) -> list[str]:
    """A file where the run's folder should be."""
    (folder / "results").write_text("notes")
    return on_blobs(folder, "--trainer.default_root_dir=results")


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """The system refuses to write files of more than 20 kB, as on a full disk: a checkpoint has more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def full_disk() -> contextlib.AbstractContextManager[object]:
    """No table can be written."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.csv")
    return mock.patch("csv.DictWriter.writerows", side_effect=full)


CUTMIX = "--protocol.mixing=CutMix"

WRONG_INPUTS = [
    # The command and its configuration files
    WrongInput("no command", lambda folder: [], ("command is missing", "fit, validate, test, predict")),
    WrongInput("unknown command", lambda folder: ["train"], ("train", "fit, validate, test, predict")),
    WrongInput("stray word", fit("hello"), ("hello", "--KEY=VALUE")),
    WrongInput("unknown config", fit("--config=no.yaml"), ("no.yaml", "shipped are", "modern.yaml")),
    WrongInput("config is a folder", fit("--config=."), ("config .", "folder")),
    WrongInput("config is empty", config(""), ("mine.yaml", "empty")),
    WrongInput("config is a list", config("- a\n- b\n"), ("mine.yaml", "list", "mapping")),
    WrongInput("config is not YAML", config("a: [1, 2\nb: }{"), ("mine.yaml", "line 2, column 2")),
    WrongInput("config is binary", config(bytes(range(256))), ("mine.yaml", "not text")),
    WrongInput(
        "config runs Python",
        config("model: !!python/object/apply:os.mkdir [executed]"),
        ("line 1", "os.mkdir"),
    ),
    WrongInput(
        "config names another class",
        config("data: {class_path: os.mkdir, init_args: {path: executed}}"),
        ("data: ", "os.mkdir", "CIFAR10"),
    ),
    # Keys, types and ranges
    WrongInput("unknown key", fit("--model.widht=3"), ("there is no key model.widht",)),
    WrongInput("unknown key in a file", config("model: {widht: 3}"), ("there is no key model.widht",)),
    WrongInput(
        "wrong value under an earlier name",
        fit("--model.width=wide"),
        ("model.network.embed_dim", "wide"),
    ),
    WrongInput(
        "unknown key of a component",
        fit(CUTMIX, "--protocol.mixing.prob=1"),
        ("mixing.prob", "mixing.probability is meant"),
    ),
    WrongInput("unknown group", config("modle: {lr: 3}"), ("modle.lr",)),
    WrongInput("null for a number", config("model: {compile: null}"), ("model.compile", "null")),
    WrongInput("a group that is none", config("model: 3"), ("model: ", "LightningModule")),
    WrongInput(
        "text for a whole number",
        fit("--model.network.embed_dim=big"),
        ("model.network.embed_dim: ", "int", "big"),
    ),
    WrongInput("text for a number", config("model: {lr: high}"), ("model.lr: ", "float", "high")),
    WrongInput(
        "neither of two types",
        fit("--trainer.max_epochs=many"),
        ("trainer.max_epochs: ", "int", "many"),
    ),
    WrongInput(
        "not one of a few",
        fit("--model.network.global_pool=max"),
        ("model.network.global_pool: ", "'token', 'avg'", "max"),
    ),
    WrongInput(
        "text for a component's number",
        fit(CUTMIX, "--protocol.mixing.probability=lots"),
        ("protocol.mixing.probability: ", "float", "lots"),
    ),
    WrongInput(
        "unknown class",
        fit("--protocol.mixing=CutMx"),
        ("protocol.mixing: ", "CutMx", "CutMix", "MixUp"),
    ),
    WrongInput("unknown data set", fit("--data=CIFAR1000"), ("data: ", "CIFAR1000", "CIFAR100,")),
    WrongInput(
        "a class of another kind",
        fit("--protocol.mixing=vitlocal.data.Digits"),
        ("Digits", "CutMix"),
    ),
    WrongInput("a needed argument left out", fit("--data=NPZ"), ("data: ", "required: path")),
    WrongInput(
        "probability out of range",
        fit(CUTMIX, "--protocol.mixing.probability=1.5"),
        ("1.5", "from 0 to 1"),
    ),
    WrongInput("alpha out of range", fit(CUTMIX, "--protocol.mixing.alpha=0"), ("alpha=0", "above 0")),
    WrongInput("epsilon out of range", fit("--protocol.label_smoothing.epsilon=1"), ("epsilon=1", "below 1")),
    WrongInput("batch of no images", fit("--data.batch_size=0"), ("batch_size=0", "at least 1")),
    WrongInput("share out of range", fit("--data.val_fraction=1"), ("val_fraction=1", "below 1")),
    WrongInput("seed out of range", fit("--seed_everything=-1"), ("seed_everything is -1", "from 0")),
    WrongInput("no learning rate", config("model: {lr: .nan}"), ("model.lr is nan", "0 or more")),
    WrongInput(
        "negative class weight",
        blobs_with("--model.class_weights=[1,-2]"),
        ("model.class_weights has -2.0", "class '1'"),
    ),
    WrongInput(
        "class weights of too few classes",
        blobs_with("--model.class_weights=[1]"),
        ("model.class_weights has 1 values", "classes"),
    ),
    WrongInput(
        "unknown class weights",
        fit("--model.class_weights=even"),
        ("model.class_weights: ", "balanced", "list"),
    ),
    WrongInput(
        "patch does not divide",
        fit("--model.network.patch_size=5"),
        ("patch_size is 5", "32x32", "multiples"),
    ),
    WrongInput(
        "heads do not divide",
        fit("--model.network.num_heads=7"),
        ("embed_dim is 96", "num_heads is 7", "multiple"),
    ),
    WrongInput("a million layers", fit("--model.network.depth=1000000"), ("depth is 1000000", "from 1 to")),
    WrongInput("negative epochs", fit("--trainer.max_epochs=-5"), ("max_epochs=-5", "non-negative")),
    WrongInput("endless training", fit("--trainer.max_epochs=-1"), ("trainer.max_epochs", "cosine")),
    WrongInput(
        "no training", fit("--trainer.limit_train_batches=0"), ("limit_train_batches is 0", "validate")
    ),
    WrongInput(
        "a checkpoint's name with a slash",
        fit("--checkpoint.filename={epoch}-{val/acc1:.2f}"),
        ("checkpoint.filename", "makes folders", "auto_insert_metric_name=false"),
    ),
    # The machine
    WrongInput("no such device", fit("--trainer.accelerator=tpu"), ("accelerator=tpu", "torch_xla")),
    WrongInput(
        "unknown device",
        fit("--trainer.accelerator=xpu9"),
        ("accelerator=", "xpu9", "Available names"),
    ),
    WrongInput("too many processes", fit("--trainer.devices=4096"), ("trainer.devices is 4096", "at most")),
    WrongInput("unknown strategy", fit("--trainer.strategy=warp"), ("strategy=warp", "ddp")),
    WrongInput("unknown precision", fit("--trainer.precision=7"), ("trainer.precision: ", "bf16-mixed", "7")),
    WrongInput("run folder can't be made", occupied, ("results", "Not a directory")),
    WrongInput("disk full at a table", blobs_with(), ("metrics.csv", "no room"), full_disk, starts=True),
    WrongInput("disk full at TensorBoard's file", blobs_with(), ("no room",), small_files, starts=True),
    WrongInput(
        "disk full at a checkpoint",
        blobs_with("--trainer.logger=false"),
        ("best.ckpt", "make room"),
        small_files,
        starts=True,
    ),
    WrongInput(
        "loss turns NaN",
        blobs_with("--model.lr=1e30", "--model.warmup_epochs=0"),
        ("stopped at step", "learning rate", "model.lr"),
        starts=True,
    ),
    # Data
    WrongInput("no such file", fit("--data=NPZ", "--data.path=no.npz"), ("no.npz", "give the path")),
    WrongInput("missing array", npz(train_labels=None), ("no array 'train_labels'", "train_images")),
    WrongInput("object array", npz(train_labels=object_array()), ("blobs.npz", "Object arrays")),
    WrongInput(
        "images of floats",
        npz(train_images=np.zeros((16, 8, 8))),
        ("train_images", "float64", "uint8"),
    ),
    WrongInput("label out of range", npz(val_labels=np.full(8, 200)), ("label 200", "without gaps")),
    WrongInput("negative label", npz(train_labels=np.full(16, -1)), ("train split", "-1", "from 0")),
    WrongInput("truncated .npz", truncated_npz, ("blobs.npz", "can't be read")),
    WrongInput(
        "empty class folder",
        images(lambda pets: (pets / "train/emu").mkdir()),
        ("train/emu", "no image"),
    ),
    WrongInput(
        "unknown class folder",
        images(lambda pets: (pets / "val/emu").mkdir()),
        ("val/emu", "no class"),
    ),
    WrongInput(
        "corrupt image",
        images(lambda pets: cut(pets / "val/dog/1.png")),
        ("val/dog/1.png", "decoded"),
    ),
    WrongInput("no images", images(lambda pets: shutil.rmtree(pets / "train")), ("no folder", "train")),
    WrongInput("truncated archive", archive(cut), ("tiny.zip", "download or copy it again")),
    # Checkpoints
    WrongInput("no such checkpoint", blobs_with("--ckpt_path=no.ckpt"), ("no.ckpt", "path of one")),
    WrongInput(
        "checkpoint's address", blobs_with("--ckpt_path=http://127.0.0.1:9/a.ckpt"), ("no checkpoint",)
    ),
    WrongInput("a switch for pickles", blobs_with("--weights_only=false"), ("no key weights_only",)),
    WrongInput("no run yet", blobs_with("--ckpt_path=last"), ("blobs-baseline", "last.ckpt", "train one")),
    WrongInput("checkpoint is text", ckpt(lambda path: path.write_text("hello")), ("given.ckpt", "no whole")),
    WrongInput("checkpoint is empty", ckpt(lambda path: path.touch()), ("given.ckpt", "no whole")),
    WrongInput(
        "checkpoint cut short",
        ckpt(lambda path: cut(checkpoint(path)), "fit"),
        ("given.ckpt", "cut short"),
    ),
    WrongInput(
        "checkpoint runs Python",
        ckpt(lambda path: path.write_bytes(pickle.dumps(Crafted())), "fit"),
        ("given.ckpt", "plain values"),
    ),
    WrongInput(
        "checkpoint hides Python",
        ckpt(lambda path: torch.save({"state_dict": {}, "hyper_parameters": {"a": Crafted()}}, path), "fit"),
        ("given.ckpt", "plain values"),
    ),
    WrongInput(
        "another program's checkpoint",
        ckpt(lambda path: torch.save({"model": {}}, path)),
        ("given.ckpt", "lacks"),
    ),
    WrongInput(
        "checkpoint without weights",
        ckpt(lambda path: checkpoint(path, state_dict={})),
        ("checkpoint", "shape"),
    ),
    WrongInput(
        "checkpoint without training",
        ckpt(lambda path: checkpoint(path, loops={}), "fit"),
        ("checkpoint", "restored"),
    ),
    WrongInput(
        "checkpoint of a step that is no number",
        ckpt(lambda path: checkpoint(path, global_step=[]), "validate"),
        ("checkpoint", "restored"),
    ),
    WrongInput(
        "checkpoint of other images",
        ckpt(lambda path: [checkpoint(path), blobs(path.with_name("blobs.npz"), **_wide())]),
        ("image_size (8, 8)", "(12, 12)"),
    ),
]


def _wide() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        f"{split}_images": rng.integers(0, 256, (count, 12, 12), dtype=np.uint8)
        for split, count in (("train", 16), ("val", 8))
    }
