"""``python -m vitlocal prune``."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from vitlocal.compress.prune import figures, gradual, heads, latency, report, run_folder
from vitlocal.compress.prune.latency import Latency
from vitlocal.compress.prune.parts import shape_of, stitch
from vitlocal.compress.prune.plain import as_plain
from vitlocal.compress.prune.report import Pruned
from vitlocal.compress.prune.runtime import Precision, Runtime, Setting
from vitlocal.compress.prune.stages import Stages
from vitlocal.compress.prune.work import BATCH, Goal, Work, settings, work_on
from vitlocal.compress.report import write_table
from vitlocal.compress.trained_run import validation_batches
from vitlocal.data import ImageDataModule
from vitlocal.errors import InputError
from vitlocal.files import atomic_path, remove_leftovers
from vitlocal.heads.figures import LABELS
from vitlocal.models import VisionTransformer
from vitlocal.runs import open_run

OBSERVED = 1000
"""Most validation images on which it is measured what heads look at."""


def prune(
    run: Path,
    speedups: list[float] | None = None,
    data: ImageDataModule | str | None = None,
    output: Path | None = None,
    calibration_images: int = 1024,
    search_steps: int = 100,
    seed: int = 0,
    rival_methods: bool = True,
    epochs: int = 0,
    lr: float | None = None,
    device: str | None = None,
    batch_size: int = 128,
    precision: Precision = "32-true",
    threads: int | None = None,
    runtime: Runtime = "eager",
    repeats: int = 20,
    latencies: Path | None = None,
    max_images: int | None = None,
) -> list[Pruned]:
    """Take heads and MLP features out of a trained network until it is as fast as is wanted (ZipLM).

    One-shot, without training: structured Optimal Brain Surgeon for the heads and features of each layer,
    times measured on this machine, and a search for how much each layer keeps. Writes a run's folder for each
    speedup, which fit, validate, inspect, quantize and export take; prune.csv, prune.md, prune_heads.csv and
    figures. What was stopped resumes.

    Args:
        run: A run's folder, for its best checkpoint, or a checkpoint.
        speedups: How many times as fast as the whole network, such as [1.5,2]. Left out, 1.5, 2 and 3.
        data: Data set to calibrate and measure on: a YAML file such as digits.yaml, or a class such as Digits
            with --data.KEY=VALUE. Left out, the one that the run was trained on.
        output: Folder to write to. Left out, prune in the run's folder.
        calibration_images: Most training images to calibrate on, without augmentation.
        search_steps: Steps of the search for how much each layer keeps; 0 weighs all layers alike.
        seed: Which training images are taken, and of the search.
        rival_methods: Prune by other methods too, with the same search: magnitude, diagonal, random, and the
            same share of every layer.
        epochs: Beside one-shot, prune gradually: from speedup to speedup, each time from the network before,
            with so many epochs of fit after each, under the run's protocol and with distillation from the
            dense network. 0 leaves that out.
        lr: Peak learning rate of these epochs. Left out, a tenth of the run's.
        device: To be fast on, such as cpu or cuda. Left out, a GPU if there is one.
        batch_size: Images a call to be fast with.
        precision: To be fast in.
        threads: Of the CPU to be fast with. Left out, PyTorch's number.
        runtime: What it is to be fast by: PyTorch as it is, eager; torch.compile, compile; or ONNX Runtime on
            the CPU, onnx, which needs the extra compress. Each of some sixty sizes of a layer is compiled or
            written to a file first, which takes minutes.
        repeats: Calls that are measured, of every network in turn.
        latencies: Table of latencies to use, latencies.json of an earlier pruning on this machine. Left out,
            it is measured.
        max_images: Most validation images to measure on, spread evenly. Left out, all.

    Returns:
        The rows of prune.csv.

    Raises:
        InputError: What is given is not there, is out of its range, or doesn't fit together, or a speedup
            can't be reached.
    """
    speedups = sorted({1.5, 2.0, 3.0} if speedups is None else set(speedups))
    _check(
        speedups,
        seed,
        {
            "calibration_images": calibration_images,
            "batch_size": batch_size,
            "repeats": repeats,
            "threads": threads,
            "max_images": max_images,
        },
        {"search_steps": search_steps, "epochs": epochs, "lr": lr},
    )
    place = "cuda" if torch.cuda.is_available() else "cpu"
    used_on = device or ("cpu" if runtime == "onnx" else place)
    setting = Setting(used_on, batch_size, precision, threads or torch.get_num_threads(), runtime)
    setting.check()
    opened = open_run(run)
    if epochs and not opened.config:
        raise InputError(
            f"epochs is {epochs} but {opened.checkpoint} has no config.yaml beside it, from which fit could "
            "train on: give a run's folder, or leave epochs out"
        )
    output = output or opened.folder / "prune"
    if output.exists() and not output.is_dir():
        raise InputError(f"output {output} is a file: give a folder")
    opened = as_plain(opened, output / "dense")
    work = work_on(opened, data, calibration_images, seed, max_images)
    subject, network, of_run = work.subject, work.network, work.data
    table = _table(latencies, output, work, setting, repeats)
    goals = {
        speedup: Goal(network, speedup, table, budget, repeats)
        for speedup, budget in work.budgets(table, speedups).items()
    }

    if not math.isfinite(work.calibration_loss(network)):
        raise InputError(f"the logits of {subject.name} are not finite: give a model whose weights are")

    images = sum(len(batch["label"]) for batch in work.calibration)
    stages = Stages(output / "stages.json", settings(opened.checkpoint, images, seed, search_steps, table))
    sweeps = {"ziplm": work.surgeon(), **(work.rivals(seed) if rival_methods else {})}
    networks: dict[tuple[str, float], VisionTransformer] = {}
    equal_losses: dict[tuple[str, float], float] = {}
    for speedup in speedups:
        for method, of_method in sweeps.items():
            about = f"searching {speedup:g}x, {method}"
            search = partial(work.search, of_method, goals[speedup], search_steps, seed, about)
            found = stages.get(f"{method} {speedup:g}", search)
            equal_losses[method, speedup] = found["equal_loss"]
            networks[method, speedup] = stitch(network, of_method, work.choice(found["levels"]))
        if rival_methods:
            same = partial(work.uniform, sweeps["ziplm"], goals[speedup])
            levels = stages.get(f"uniform {speedup:g}", same)["levels"]
            networks["uniform", speedup] = stitch(network, sweeps["ziplm"], work.choice(levels))
        run_folder.write(opened, networks["ziplm", speedup], output / f"speedup_{speedup:g}")
    if epochs:
        lr = opened.hyperparameters["lr"] / 10 if lr is None else lr
        step = gradual.Step(opened, output, stages, search_steps, seed, epochs, lr)
        networks |= {("gradual", goal.speedup): trained for goal, trained in step.all(work, goals.values())}
    found_rows = work.measured(networks, equal_losses, table, repeats)

    kept = {speedup: shape_of(networks["ziplm", speedup])["kept_heads"] for speedup in speedups}
    shown = (batch["image"] for batch in validation_batches(of_run, BATCH, max_images or OBSERVED))
    of_heads = heads.table(
        shape_of(network)["kept_heads"], sweeps["ziplm"], work.energies, kept, heads.observed(subject, shown)
    )
    besides = f"; gradually, with {epochs} epochs of training after each speedup" if epochs else ""
    how = (
        f"One-shot, without training, on {images} training images (seed {seed}), with {search_steps} steps "
        f"of search{besides}; measured on {found_rows[0].images} validation images of {of_run.name}."
    )
    text = report.markdown(subject.name, how, table, found_rows, of_heads, heads.correlations(of_heads))
    _write(output, found_rows, of_heads, text, LABELS[subject.geometry.unit])
    print(text)
    print(f"vitlocal: the tables, figures and pruned runs are in {output}")
    return found_rows


def _check(
    speedups: Sequence[float],
    seed: int,
    at_least_one: Mapping[str, int | None],
    not_negative: Mapping[str, float | None],
) -> None:
    if not speedups or not all(1 < speedup < math.inf for speedup in speedups):
        raise InputError(f"speedups is {list(speedups)}: give numbers above 1, such as [1.5,2,3]")
    for name, number in at_least_one.items():
        if number is not None and number < 1:
            raise InputError(f"{name} is {number}: give at least 1")
    for name, value in not_negative.items():
        if value is not None and not 0 <= value < math.inf:
            raise InputError(f"{name} is {value}: it must be a number of 0 or more")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}: it must be from 0 to {2**32 - 1}")


def _table(given: Path | None, output: Path, work: Work, setting: Setting, repeats: int) -> Latency:
    """The table of latencies that is given, or that an earlier start has measured, or a new one."""
    path = given or output / "latencies.json"
    if given is not None or path.exists():
        return latency.read(path, work.network, work.wanted, setting)
    shape = len(work.subject.mean), *work.subject.image_size
    table = latency.measure(work.network, shape, work.wanted, setting, repeats)
    latency.write(table, path)
    return table


def _write(
    output: Path, rows: Sequence[Pruned], of_heads: Sequence[heads.Head], text: str, label: str
) -> None:
    remove_leftovers(output)
    drawn = {"accuracy": figures.accuracy_figure(rows), "times": figures.time_figure(rows)}
    if of_heads:
        write_table(output / "prune_heads.csv", of_heads)
        drawn["heads"] = figures.heads_figure(of_heads, label)
    for name, figure in drawn.items():
        with atomic_path(output / f"{name}.png") as path:
            figure.savefig(path, dpi=150)
    with atomic_path(output / "prune.md") as path:
        path.write_text(text, encoding="utf-8")
    write_table(output / "prune.csv", rows)
