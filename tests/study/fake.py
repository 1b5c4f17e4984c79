"""Run folders of made-up numbers, as a study leaves them."""

import json
from pathlib import Path

import numpy as np
import yaml

from vitlocal.activations.monitor import COLUMNS as OUTLIERS
from vitlocal.activations.monitor import HEAD_COLUMNS as HEADS
from vitlocal.files import EpochTable
from vitlocal.heads.functional import STATISTICS
from vitlocal.tasks.epoch_metrics import columns
from vitlocal.tasks.objective import OneLabel

COMPONENTS = {"photometric": "AutoAugment", "mixing": "CutMix", "label_smoothing": "LabelSmoothing"}
ABLATION = {
    "baseline": (),
    "+autoaugment": ("photometric",),
    "+cutmix": ("mixing",),
    "+smoothing": ("label_smoothing",),
    "-autoaugment": ("mixing", "label_smoothing"),
    "-cutmix": ("photometric", "label_smoothing"),
    "-smoothing": ("photometric", "mixing"),
    "modern": ("photometric", "mixing", "label_smoothing"),
}


def config(components=(), seed=0, epochs=4, **settings):
    protocol = {"crop_flip": {"class_path": "vitlocal.protocol.CropFlip"}}
    for key, name in COMPONENTS.items():
        protocol[key] = (
            {"class_path": f"vitlocal.protocol.{name}", "init_args": {}} if key in components else None
        )
    return {
        "seed_everything": seed,
        "trainer": {"max_epochs": epochs},
        "model": {"network": {"patch_size": 4, "global_pool": "token"}, "image_size": None},
        "data": {"class_path": "vitlocal.data.Digits", "init_args": {"batch_size": 32}},
        "protocol": protocol,
        "locality": {"class_path": "vitlocal.heads.LocalityMonitor", "init_args": {"unit": "grid"}},
    } | settings


def write_run(folder, config, *, epochs=4, depth=4, heads=3, least=0.3, accuracy=0.9):
    """A run whose heads go from uniform attention's 0.418 to ``least`` for the first head of layer 0."""
    rng = np.random.default_rng(config["seed_everything"] or 0)
    folder = Path(folder)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    table = EpochTable(folder / "heads.csv", ("epoch", "step", "layer", "head", *STATISTICS))
    metrics = EpochTable(folder / "metrics.csv", columns(OneLabel()))
    share = np.linspace(0, 0.8, depth * heads) ** 0.7
    aims = (
        0.418 * share + least * (1 - share) + np.append(0, 0.015 * rng.normal(size=depth * heads - 1).clip(0))
    )
    aims = aims.clip(max=0.418)
    for epoch in range(epochs + 1):
        done = 1 - np.exp(-4 * epoch / max(epochs, 1)) if epoch < epochs else 1
        rows = []
        for place, aim in enumerate(aims):
            mad = 0.418 + done * (aim - 0.418)
            entropy = 1 - done * 0.9 * (1 - aim / 0.418) ** 1.5
            values = dict.fromkeys(STATISTICS, 0.02) | {"mad": mad, "entropy": entropy}
            values["self_mass"] = min(1, 0.0156 + done * (1 - aim / 0.418) ** 2)
            rows.append({"step": epoch, "layer": place // heads, "head": place % heads, **values})
        table.write(epoch, rows)
        if epoch:
            metrics.write(epoch, [{"step": epoch, "val/acc1": accuracy * done, "train/loss": 1 / epoch}])
    return folder


def write_outliers(
    run, inf_norm=10.0, kurtosis=5.0, outliers=2.0, do_nothing=0.3, *, epochs=4, depth=4, heads=3
):
    """The tables of ``OutlierMonitor``; at the end each layer has these values, the last twice them."""
    table = EpochTable(run / "outliers.csv", OUTLIERS)
    of_heads = EpochTable(run / "do_nothing.csv", HEADS)
    for epoch in range(epochs + 1):
        rows, head_rows = [], []
        for layer in range(depth):
            size = (1 if epoch == epochs else 100) * (2 if layer == depth - 1 else 1)
            values = {"inf_norm": inf_norm, "kurtosis": kurtosis, "outliers": outliers}
            of_blocks = {f"block_{name}": size * value for name, value in values.items()}
            rows.append({"step": epoch, "layer": layer} | dict.fromkeys(OUTLIERS[3:], 7) | of_blocks)
            for head in range(heads):
                share = do_nothing * (1 if epoch == epochs else 0.1)
                head_rows.append(
                    {"step": epoch, "layer": layer, "head": head, "do_nothing": share, "update": share / 4}
                )
        table.write(epoch, rows)
        of_heads.write(epoch, head_rows)
    return run


def write_study(root, conditions, least, *, data=("digits",), seeds=(0, 1, 2), epochs=4, **sizes):
    """Cells of a study; ``least(condition, components, rng)`` is each one's smallest MAD."""
    rng = np.random.default_rng(7)
    for label in data:
        for condition, components in conditions.items():
            for seed in seeds:
                cell = root / "cells" / label / condition / f"seed_{seed}"
                write_run(
                    cell / "lightning_logs" / f"{label}-protocol" / "version_0",
                    config(components, seed, epochs),
                    epochs=epochs,
                    least=least(condition, components, rng),
                    accuracy=0.9 + 0.02 * len(components) + 0.01 * rng.normal(),
                    **sizes,
                )
                words = ["python", "-m", "vitlocal", "fit", f"--seed_everything={seed}"]
                (cell / "cell.json").write_text(json.dumps({"status": "done", "command": words}))
    return root
