"""Everything shipped runs as shipped: commands as they are given, in a new folder, to the end of an epoch.

All defaults are on, the logger and its figures too. Only the data are small, in their real layouts, and
training ends after an epoch.
"""

import csv
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.data import official
from vitlocal import config_files
from vitlocal.cli import main
from vitlocal.data import CIFAR10, CIFAR100, TinyImageNet
from vitlocal.heads.summary import HEADLINES

ROOT = Path(__file__).parents[1]
SHIPPED = {name: path.read_text("utf-8") for name, path in sorted(config_files.shipped().items())}
GRAPHS = [name for name, text in SHIPPED.items() if "NodeClassification" in text]
SEQUENCES = [name for name, text in SHIPPED.items() if "SequenceModeling" in text or "form:" in text]
GRAPHS += SEQUENCES  # tests/cli/test_sequences.py has a run of them
DATA = [name for name, text in SHIPPED.items() if "\ndata: {class_path" in text and name not in GRAPHS]
PROTOCOLS = [name for name, text in SHIPPED.items() if text.partition("\nprotocol:")[2] and name not in DATA]
PROTOCOLS = [name for name in PROTOCOLS if name not in GRAPHS]
STUDIES = sorted({*SHIPPED} - {*DATA, *PROTOCOLS, *GRAPHS})
AN_EPOCH = "--trainer.max_epochs=1"
SLOW = pytest.mark.slow
QUICK = "npz.yaml"
"""Whose run is made every time."""

ELSEWHERE = (
    r"devices=|NODE_RANK|srun|compile|--pretrained|--workers|--engine|--seeds|\$|\*|docs/runs|_small|nothing"
    r"|nodes\.yaml"
)
"""In lines for several machines or GPUs, others' weights, the paper's scale, or files that aren't shipped."""


def words(line):
    """Of a command line after ``python -m vitlocal``, with what is there in the place of FILE and FOLDER."""
    given = shlex.split(line.partition("python -m vitlocal ")[2], comments=True)
    return [re.sub("FILE$", "medical.npz", re.sub("FOLDER$", "pets", word)) for word in given]


def header(name):
    """The command in the first line of a shipped file."""
    return words(SHIPPED[name].splitlines()[0])


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A new folder with small data where the commands look for them."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for module in (CIFAR10, CIFAR100):
        made = official.cifar(module.reader, Path("data"))
        monkeypatch.setattr(module, "archive_size", made.size)
        for name, value in made.reader.items():
            monkeypatch.setattr(module.reader, name, value)
    monkeypatch.setattr(TinyImageNet, "remote", official.tiny_imagenet(Path("data/tiny-imagenet-200.zip")))
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 24), ("val", 9), ("test", 8)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % 3)[:, None]
    np.savez_compressed("medical.npz", **arrays)
    for folder in ("pets/train/cat", "pets/train/dog", "pets/val/cat", "pets/val/dog", "photos"):
        Path(folder).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (80, 100, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"{folder}/{number}.jpg")
    return tmp_path


def newest(pattern="*"):
    return max(Path("lightning_logs").glob(f"{pattern}/version_*"), key=lambda run: run.stat().st_mtime_ns)


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def whole(run):
    """Nothing is missing of what README promises of a run of one epoch."""
    (row,) = table(run / "metrics.csv")
    measured = {name: value for name, value in row.items() if not name.endswith("_macro")}
    assert all(math.isfinite(float(value)) for value in measured.values()), row
    assert {row["epoch"] for row in table(run / "heads.csv")} == {"0", "1"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (run / "config.yaml").is_file()
    tags = EventAccumulator(str(run)).Reload().Tags()
    assert {"train/loss", "val/loss", *HEADLINES} <= {*tags["scalars"]}
    figures = {"locality/mad", "locality/entropy", "locality/mad_over_training", "locality/attention/image_1"}
    assert figures - {*tags["images"]} <= {"locality/attention/image_1"}  # where there is one image


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == QUICK else SLOW) for name in (*DATA, *PROTOCOLS)]
)
def test_a_file_by_its_header_and_all_that_is_done_with_its_run(workplace, capsys, name):
    fit = header(name)
    assert fit[0] == "fit" and name in fit
    main([*fit, AN_EPOCH])
    assert "Total FLOPs: 0" not in capsys.readouterr().out
    run = newest()
    whole(run)
    for command in ("validate", "test", "predict"):
        main([command, *fit[1:], "--ckpt_path=best"])
        done = newest(f"*-{command}")
        if command == "predict":
            assert table(done / "predictions.csv")
        else:
            assert {row["epoch"] for row in table(done / "heads.csv")} == {"1"}
    main(["inspect", str(run)])
    assert list(Path("lightning_logs").rglob("inspect.yaml"))
    main(["compare", str(run)])
    assert Path("lightning_logs/compare/index.html").is_file()
    if name == QUICK:
        return  # what follows takes its time, and has quick tests of its own
    for suffix in ("onnx", "safetensors"):
        main(["export", "--ckpt_path", str(run), "--output", f"vit.{suffix}"])
        assert Path(f"vit.{suffix}").is_file()
    # By default it wants 512 training images, as all of the real data sets have.
    main(["quantize", "--ckpt_path", str(run), "--calibration_batches=2", "--batch_size=2"])
    assert (run / "quantize" / "int8.onnx").is_file()


@SLOW
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_by_its_header(workplace, name):
    given = header(name)
    assert given == ["study", "--config", name]
    settings = yaml.safe_load(SHIPPED[name])
    # At the least scale: the paper's is days.
    main([*given, "--small", "--seeds=[0]", f"--fit={settings.get('fit', '')} {AN_EPOCH}"])
    (results,) = Path("lightning_logs").glob("study-*/results")
    assert (results / "index.html").is_file()
    conditions = {row["condition"] for row in table(results / "runs.csv")}
    assert conditions == {*settings["conditions"]}


def commands(page):
    """Command lines of a page, in their order, without those that need what isn't at hand here."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.strip() for line in "\n".join(blocks).splitlines() if "python -m vitlocal " in line]
    return [line for line in lines if not re.search(ELSEWHERE, line)]


PAGES = {page.stem: lines for page in sorted((ROOT / "docs").glob("*.md")) if (lines := commands(page))}


@SLOW
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page(workplace, page):
    for protocol in ("baseline", "modern"):
        main(["fit", "--config", f"{protocol}.yaml", AN_EPOCH])
    best = "lightning_logs/digits-modern/version_0/checkpoints/best.ckpt"
    for line in PAGES[page]:
        given = words(line.replace("CHECKPOINT", best))
        if given[0] == "fit" and "--print_config" not in given:
            given.append("--trainer.max_epochs=2" if "--ckpt_path=last" in given else AN_EPOCH)
        if given[0] == "study":
            given.append(f"--fit={AN_EPOCH}")
        try:
            main(given)
        except SystemExit as ended:  # --print_config
            assert not ended.code, line
