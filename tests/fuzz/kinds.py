"""Bad input by the thousand: for each kind, how it is made and what it is given to.

The invariant, everywhere: it works, or it is refused with one sentence; nothing in it is executed.
"""

import contextlib
import io
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from PIL import Image

from tests.folders import chdir
from tests.spoilt import Crafted, blobs, checkpoint, image_folder, on_blobs, tiny_imagenet
from vitlocal.cli import main, messages
from vitlocal.data import NPZ, ImageFolder, TinyImageNet
from vitlocal.runs import checkpoints

DATA_KEYS = ("path", "batch_size", "val_fraction", "split_seed", "num_workers", "class_path", "image_size")
KEYS = (
    *(f"model.network.{name}" for name in ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")),
    *(
        f"model.network.{name}"
        for name in ("global_pool", "drop_rate", "drop_path_rate", "attention", "init")
    ),
    *(f"model.{name}" for name in ("network", "width", "lr", "weight_decay", "warmup_epochs", "compile")),
    *(f"model.{name}" for name in ("image_size", "in_channels", "num_classes", "mean", "std", "colour")),
    *(f"protocol.{name}" for name in ("crop_flip", "photometric", "mixing", "label_smoothing", "mixin")),
    *(f"protocol.crop_flip.{name}" for name in ("padding", "flip", "class_path", "init_args")),
    *(f"protocol.mixing.init_args.{name}" for name in ("alpha", "probability", "box", "size")),
    *(f"protocol.photometric.init_args.{name}" for name in ("policy", "brightness", "hue")),
    "protocol.label_smoothing.epsilon",
    *(f"data.init_args.{name}" for name in DATA_KEYS),
    *(f"locality.{name}" for name in ("every_n_epochs", "max_images", "unit", "class_token", "maps", "seed")),
    *("model", "protocol", "data", "locality", "checkpoint", "trainer", "seed_everything", "ckpt_path"),
    *(
        "trainer.max_epochs",
        "trainer.precision",
        "trainer.callbacks",
        "checkpoint.monitor",
        "checkpoint.mode",
    ),
)
CLASSES = (
    "CutMix",
    "MixUp",
    "Cutout",
    "AutoAugment",
    "ColorJitter",
    "Digits",
    "NPZ",
    "os.mkdir",
    "vitlocal.nothing",
)

_numbers = st.one_of(
    st.integers(-3, 9), st.sampled_from([2**16 + 1, 2**31, 2**63, 10**30, -(2**63)]), st.floats(width=32)
)
_scalars = st.one_of(st.none(), st.booleans(), _numbers, st.text(max_size=12), st.sampled_from(CLASSES))
VALUES = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["class_path", "init_args"]), st.text(max_size=6)), inner, max_size=3
        ),
    ),
    max_leaves=5,
)
MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "drop"]), st.floats(0, 1), st.binary(min_size=1, max_size=6)
    ),
    min_size=1,
    max_size=4,
)


def mutated(content: bytes, mutations: list[tuple[str, float, bytes]]) -> bytes:
    """Apply each in turn, at its share of the length."""
    for how, share, new in mutations:
        at = int(share * len(content))
        if how == "flip":
            changed = bytes(old ^ (byte or 1) for old, byte in zip(content[at:], new, strict=False))
            content = content[:at] + changed + content[at + len(changed) :]
        elif how == "cut":
            content = content[:at]
        elif how == "insert":
            content = content[:at] + new + content[at:]
        else:
            content = content[:at] + content[at + len(new) :]
    return content


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        strategy: what to try.
        attempt: takes an empty folder that is the working one, and the value; raises if it is refused.
    """

    strategy: st.SearchStrategy[Any]
    attempt: Callable[[Path, Any], object]


def outcome(kind: Kind, value: Any) -> str:
    """``accepted`` or ``refused``.

    Raises:
        Exception: neither: a traceback, a refusal without a sentence, or something was executed.
    """
    said = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        chdir(folder),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        result = "accepted"
        try:
            kind.attempt(Path(folder), value)
        except SystemExit as left:
            result = "refused" if left.code else "accepted"
            if left.code and said.getvalue().count("vitlocal: error: ") != 1:
                raise AssertionError(f"left without one sentence: {said.getvalue()[-500:]}") from left
        except Exception as error:
            sentence = messages.of(error)
            if not sentence or "\n" in sentence:
                raise
            result = "refused"
        if Path("executed").exists():
            raise AssertionError("something was executed")
    return result


@contextlib.contextmanager
def built_only() -> Iterator[None]:
    """``fit`` reads the data and builds the network, without memory for it, and ends there."""

    def build(trainer: Trainer, model: Any, datamodule: Any, ckpt_path: str | None = None) -> None:
        datamodule.setup()
        for fact in ("image_size", "in_channels", "num_classes", "mean", "std"):
            if model.hparams[fact] is None:
                model.hparams[fact] = getattr(datamodule, fact)
        with torch.device("meta"):
            model.configure_model()

    with mock.patch.object(Trainer, "fit", build):
        yield


def _command(folder: Path, words: list[str]) -> None:
    with built_only():
        main(on_blobs(folder, *words))


def _nested(settings: list[tuple[str, Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in settings:
        *groups, last = key.split(".")
        place = tree
        for group in groups:
            inner = place.get(group)
            place[group] = inner if isinstance(inner, dict) else {}
            place = place[group]
        place[last] = value
    return tree


def _yaml(folder: Path, settings: list[tuple[str, Any]] | bytes) -> None:
    text = (
        settings
        if isinstance(settings, bytes)
        else yaml.safe_dump(_nested(settings)).encode("utf-8", "replace")
    )
    (folder / "mine.yaml").write_bytes(text)
    _command(folder, ["--config", "mine.yaml"])


def _flags(folder: Path, flags: list[tuple[str, str]]) -> None:
    _command(folder, [f"--{key}={value}" for key, value in flags])


@cache
def _whole(make: Callable[[Path], Path], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        return make(Path(folder) / name).read_bytes()


DTYPES = ("uint8", "int64", "float32", "bool", "complex64", "U3", "S3", "datetime64[s]", "object")
_shapes = st.lists(st.sampled_from([0, 1, 2, 3, 8, 16]), max_size=5).map(tuple)
_arrays = st.dictionaries(
    st.one_of(
        st.sampled_from([f"{split}_{what}" for split in ("train", "val") for what in ("images", "labels")]),
        st.sampled_from(["test_images", "test_labels", "class_names", "x"]),
    ),
    st.one_of(st.none(), st.tuples(st.sampled_from(DTYPES), _shapes, st.integers(-3, 300))),
    min_size=1,
    max_size=3,
)


def _array(dtype: str, shape: tuple[int, ...], fill: int) -> np.ndarray:
    if dtype == "object":
        array = np.empty(shape, dtype=object)
        array.fill(Crafted())
        return array
    return np.full(shape, fill).astype(dtype)


def _npz(folder: Path, value: list[tuple[str, float, bytes]] | dict[str, Any]) -> None:
    path = folder / "data.npz"
    if isinstance(value, dict):
        blobs(path, **{name: None if given is None else _array(*given) for name, given in value.items()})
    else:
        path.write_bytes(mutated(_whole(blobs, "blobs.npz"), value))
    NPZ(path=str(path)).setup()


FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")


def _image(folder: Path, value: tuple[str, list[tuple[str, float, bytes]]]) -> None:
    kind, mutations = value
    image_folder(folder / "pets")
    content = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, kind)
    suffix = {"JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower())
    (folder / f"pets/val/cat/bad.{suffix}").write_bytes(mutated(content.getvalue(), mutations))
    ImageFolder(path=str(folder / "pets"), image_size=8).setup()


def _archive(folder: Path, value: list[tuple[str, float, bytes]] | tuple[str, bytes]) -> None:
    path = folder / "tiny.zip"
    whole = _whole(tiny_imagenet, "tiny.zip")
    if isinstance(value, list):
        path.write_bytes(mutated(whole, value))
    else:  # one member is something else
        name, new = value
        with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(path, "w") as archive:
            for member in old.namelist():
                archive.writestr(member, new if member == name else old.read(member))
            if name not in old.namelist():
                archive.writestr(name, new)
    TinyImageNet(path=str(path)).setup()


MEMBERS = (
    "t/wnids.txt",
    "t/words.txt",
    "t/val/val_annotations.txt",
    "t/train/n01/images/a.JPEG",
    "../../out.JPEG",
)
PARTS = (
    *("state_dict", "hyper_parameters", "loops", "callbacks", "optimizer_states", "lr_schedulers", "epoch"),
    *("global_step", "pytorch-lightning_version", "vitlocal_processes", "CUSTOM"),
)


def _checkpoint(folder: Path, value: list[tuple[str, float, bytes]] | tuple[str, int, Any, str]) -> None:
    path = folder / "given.ckpt"
    whole = _whole(checkpoint, "given.ckpt")
    if isinstance(value, list):
        path.write_bytes(mutated(whole, value))
        command = "validate"
        checkpoints.read(path)
    else:  # a part of it, or what is in that part, is something else
        part, number, new, command = value
        content = torch.load(io.BytesIO(whole), weights_only=True)
        inside = content.get(part)
        if number and isinstance(inside, dict) and inside:
            inside[list(inside)[number % len(inside)]] = new
        else:
            content[part] = new
        torch.save(content, path)
    main(on_blobs(folder, "--ckpt_path=given.ckpt", "--trainer.max_epochs=2", command=command))
    shutil.rmtree(folder / "lightning_logs")


_settings = st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=3)
_words = st.one_of(VALUES.map(str), st.text(max_size=20)).filter(lambda word: "\0" not in word)
_keys = st.one_of(st.sampled_from(KEYS), st.text("abcdeglmoprtx._-", min_size=1, max_size=14))
KINDS = {
    "yaml": Kind(st.one_of(_settings, _settings, st.binary(max_size=60)), _yaml),
    "flags": Kind(st.lists(st.tuples(_keys, _words), min_size=1, max_size=3), _flags),
    "npz": Kind(st.one_of(_arrays, MUTATIONS), _npz),
    "images": Kind(st.tuples(st.sampled_from(FORMATS), MUTATIONS), _image),
    "archives": Kind(
        st.one_of(MUTATIONS, st.tuples(st.sampled_from(MEMBERS), st.binary(max_size=40))), _archive
    ),
    "checkpoints": Kind(
        st.one_of(
            MUTATIONS,
            st.tuples(
                st.sampled_from(PARTS),
                st.integers(0, 9),
                st.one_of(VALUES, st.just(Crafted())),
                st.sampled_from(["validate", "fit"]),
            ),
        ),
        _checkpoint,
    ),
}
