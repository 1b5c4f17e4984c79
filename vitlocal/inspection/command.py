"""``python -m vitlocal inspect``."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitlocal.data import ImageDataModule, Resize
from vitlocal.errors import InputError
from vitlocal.geometry import ClassToken, Unit
from vitlocal.heads import find_attention, observe
from vitlocal.heads.collector import HeadCollector
from vitlocal.heads.figures import centre_patch
from vitlocal.heads.rollout import rollout_step
from vitlocal.inspection import figures, report
from vitlocal.inspection.images import NamedImages, of_data, of_folder
from vitlocal.inspection.nodes import inspect_nodes
from vitlocal.models.adapters import LIBRARIES
from vitlocal.models.subject import Subject
from vitlocal.observing.hooks import Place, places
from vitlocal.runs import Run, open_run
from vitlocal.runs.datasets import make_data
from vitlocal.runs.trained import subject_of
from vitlocal.tasks import NodeClassification

BATCH = 32
SEED = 0  # of random weights
Query = Literal["centre", "class"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
REDUCED: dict[str, torch.dtype] = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def inspect(
    model: str,
    data: ImageDataModule | str | None = None,
    images: Path | None = None,
    output: Path | None = None,
    pretrained: bool = False,
    max_images: int = 1000,
    maps: int = 4,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    query: Query = "centre",
    unit: Unit | None = None,
    class_token: ClassToken | None = None,
    precision: Precision | None = None,
    device: str | None = None,
    mixed: bool = False,
    nodes: Sequence[int] | None = None,
) -> None:
    """Measure and draw what every head of a Vision Transformer, or of a graph network, looks at.

    Writes heads.csv, figures of every head, and for the first images attention maps and attention rollout; of
    a run on a graph, the rooted subtrees of some nodes, with the weights of every head and hop.

    Args:
        model: A run's folder, for its best checkpoint, a checkpoint, or timm:NAME, torchvision:NAME or
            transformers:NAME, the last being a model of the hub, a folder with one, or a kind such as vit, by
            its default sizes.
        data: Data set whose validation images are used: a YAML file such as digits.yaml, or a class such as
            Digits with --data.KEY=VALUE. Left out, the one that the run was trained on.
        images: Folder of images to use instead.
        output: Folder to write to. Left out, inspect in the run's folder, or lightning_logs/inspect-NAME.
        pretrained: Fetch the library's trained weights; else they are random.
        max_images: Most images to measure on, or nodes of a graph, chosen at random, always the same ones.
        maps: Number of images to draw attention maps and rollout of, none where heads have hops; of a graph,
            of nodes whose subtree is drawn.
        layers: Which layers the attention maps show, by their numbers from 0. Left out, all.
        heads: Which heads they show, by their numbers from 0. Left out, all.
        query: Whose attention they show: that of the centre patch or of the class token.
        unit: Of distances: grid, a share of the grid's largest distance; patches; or pixels. Left out, the
            run's, else grid.
        class_token: drop leaves the class token out as a key, keep counts it at distance 0. Left out, the
            run's, else drop.
        precision: To compute in. Left out, the run's if that is mixed, else 32-true.
        device: Such as cpu or cuda. Left out, a GPU if there is one.
        mixed: Measure attention across the borders of CutMix's boxes too, on the same images mixed.
        nodes: Of a run on a graph, the nodes whose subtrees are drawn. Left out, random ones.

    Raises:
        InputError: What is given is not there, not supported, or doesn't fit together.
    """
    if max_images < 1:
        raise InputError(f"max_images is {max_images}: give at least 1")
    if maps < 0:
        raise InputError(f"maps is {maps}: it must not be negative")
    if data is not None and images is not None:
        raise InputError("data and images are both given: give one of them")
    subject, output, run = _open(model, pretrained, output)
    if output.exists() and not output.is_dir():
        raise InputError(f"output {output} is a file: give a folder")
    if isinstance(subject, NodeClassification):
        assert run is not None
        images_alone = {
            "data": data,
            "images": images,
            "query": None if query == "centre" else query,
            "unit": unit,
            "class_token": class_token,
            "precision": precision,
            "mixed": mixed or None,
        }
        for name, given in images_alone.items():
            if given is not None:
                raise InputError(f"{name} is given, and {model} was trained on a graph: leave it out")
        shown = _shown(places(subject.network), layers, heads)
        _move(subject, device or "cpu")
        inspect_nodes(run, subject, output, max_images, maps if nodes is None else nodes, shown)
        return
    if nodes is not None:
        raise InputError(f"nodes is given, and {model} is of images: leave it out")
    geometry = subject.geometry.measured(
        unit or _setting(run, "locality", "init_args", "unit"),
        class_token or _setting(run, "locality", "init_args", "class_token"),
    )
    used = precision or str(_setting(run, "trainer", "precision"))
    if query == "class" and not subject.class_token:
        raise InputError(f"query is class but {subject.name} has no class token: give centre")
    shown = _shown(places(subject), layers, heads)
    if any(place.num_hops for place in places(subject)):
        maps = 0  # a head's hops have weights each, and together none, since gates may be of either sign
    source, named = _images(subject, data, images, run, max_images)

    place = _move(subject, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    collector = HeadCollector(subject, place, geometry, mixed=max_images if mixed else 0)
    with torch.no_grad(), _autocast(used, place):
        drawn = _observe(subject, collector, named, maps)
        seen = [_see(subject, name, image, shown, query) for name, image in drawn]
    statistics = collector.compute()
    if not all(math.isfinite(value) for layer in statistics for value in layer["entropy"]):
        raise InputError(f"the attention of {subject.name} is not finite: give a model whose weights are")

    what = {
        "model": subject.name,
        "weights": "trained" if subject.trained else "random",
        "images": source,
        "number_of_images": int(collector.images.item()),
        "precision": used if used in REDUCED else "32-true",
    }
    report.write(output, statistics, collector.places, geometry, collector.uniform, what)
    _draw_images(output, seen, shown, query == "class", subject.class_token)
    if not subject.trained:
        print(f"vitlocal: {subject.name} has random weights; --pretrained fetches trained ones")
    print(report.summary(statistics, collector.places, collector.uniform))
    print(f"vitlocal: {what['number_of_images']} images; the tables and figures are in {output}")


def _open(
    model: str, pretrained: bool, output: Path | None
) -> tuple[Subject | NodeClassification, Path, Run | None]:
    """The network, the folder to write to, and its run, if it is of one."""
    library, colon, name = model.partition(":")
    if colon and library in LIBRARIES:
        if not name:
            raise InputError(f"model is {model}: give a name after the colon")
        folder = Path("lightning_logs") / ("inspect-" + re.sub(r"[^\w.-]+", "-", model))
        with torch.random.fork_rng(devices=[]):  # random weights are the same every time
            torch.manual_seed(SEED)
            network = LIBRARIES[library](name, pretrained)
        return Subject.of(network, model), output or folder, None
    if not Path(model).exists():
        raise InputError(
            f"model is {model}: there is no such run or checkpoint, nor does it begin with "
            f"{', '.join(f'{each}:' for each in LIBRARIES)}"
        )
    if pretrained:
        raise InputError(f"pretrained is given but {model} has its own weights: leave it out")
    run = open_run(model)
    module, output = run.load_module(), output or run.folder / "inspect"
    if isinstance(module, NodeClassification):
        return module, output, run
    return subject_of(module, str(run.checkpoint)), output, run


def _setting(run: Run | None, *keys: str) -> Any:
    """A value in a run's configuration; None where there is none."""
    config: Any = run.config if run else {}
    for key in keys:
        config = config.get(key) if isinstance(config, dict) else None
    return config


def _images(
    subject: Subject, data: ImageDataModule | str | None, folder: Path | None, run: Run | None, count: int
) -> tuple[str, NamedImages]:
    """Where the images come from, and the images as the network takes them."""
    if folder is not None:
        # A run of an earlier release has it in its configuration alone.
        kept = run.hyperparameters.get("resize") if run else None
        resize: Resize = kept or _setting(run, "data", "init_args", "resize") or "crop"
        source, named = str(folder), of_folder(folder, subject.image_size, resize, count)
    else:
        if data is None:
            if run is None or not run.config.get("data"):
                raise InputError(
                    f"it isn't known on which images to inspect {subject.name}: "
                    "give --images=FOLDER or a data set, such as --data=digits.yaml"
                )
            made = run.load_data()
        else:
            made = data if isinstance(data, ImageDataModule) else make_data(data)
        source, named = made.name, of_data(made, count)
    return source, ((name, subject.fit(image)) for name, image in named)


def _move(subject: nn.Module, device: str) -> torch.device:
    try:
        place = torch.device(device)
        subject.to(place).eval()
    except (AssertionError, RuntimeError) as error:  # an unknown name, or no such hardware or software
        said = str(error).splitlines()[0]
        raise InputError(
            f"device is {device}, which can't be used ({said}): give another, such as cpu"
        ) from error
    return place


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast(device.type, REDUCED[precision]) if precision in REDUCED else nullcontext()


def _shown(
    known: Sequence[Place], layers: Sequence[int] | None, heads: Sequence[int] | None
) -> list[tuple[int, Place]]:
    """The layers whose maps are drawn: where each is among all, its number, and its heads that are drawn."""
    kept = _numbers("layers", layers, [place.layer for place in known])
    drawn = _numbers("heads", heads, sorted({head for place in known for head in place.heads}))
    return [
        (where, Place(layer, tuple(head for head in drawn if head in numbers)))
        for where, (layer, numbers, _) in enumerate(known)
        if layer in kept
    ]


def _numbers(what: str, given: Sequence[int] | None, known: Sequence[int]) -> Sequence[int]:
    if given is None:
        return known
    if not given or not set(given) <= set(known):
        whole = len(known) > 1 and list(known) == list(range(len(known)))
        has = f"0 to {known[-1]}" if whole else ", ".join(map(str, known))
        raise InputError(f"{what} is {list(given)}: the model has {what} {has}")
    return given


def _observe(
    subject: Subject, collector: HeadCollector, named: Iterator[tuple[str, Tensor]], maps: int
) -> list[tuple[str, Tensor]]:
    """Run the network over the images in batches; give the first ``maps`` back."""
    drawn: list[tuple[str, Tensor]] = []
    batch: list[Tensor] = []

    def run() -> None:
        stacked = torch.stack(batch).to(subject.mean.device)
        with collector.batch(stacked):
            subject(stacked)
        collector.mixed(stacked, subject, 0, int(collector.images.item()))
        batch.clear()

    for name, image in named:
        if len(drawn) < maps:
            drawn.append((name, image))
        batch.append(image)
        if len(batch) == BATCH:
            run()
    if batch:
        run()
    return drawn


def _see(
    subject: Subject, name: str, image: Tensor, shown: Sequence[tuple[int, Place]], query: Query
) -> figures.Seen:
    """Attention maps and rollout of one image; of each layer only these are kept."""
    prefix, grid = subject.geometry.num_prefix_tokens, subject.geometry.size
    row, column = centre_patch(grid)
    position = 0 if query == "class" else prefix + row * grid[1] + column
    maps: list[Tensor] = []
    rollout: Tensor | None = None

    def keep(probabilities: Tensor) -> None:
        nonlocal rollout
        rollout = rollout_step(probabilities, rollout)
        maps.append(probabilities[0, :, position, prefix:].unflatten(-1, grid).cpu())

    with observe(subject, [keep] * len(find_attention(subject))):
        subject(image[None].to(subject.mean.device))
    assert rollout is not None
    out = rollout[0, 0] if subject.class_token else rollout[0, prefix:].mean(0)
    every = places(subject)
    chosen = [maps[where][[every[where].heads.index(head) for head in place.heads]] for where, place in shown]
    return figures.Seen(name, image, chosen, out[prefix:].unflatten(-1, grid).cpu())


def _draw_images(
    output: Path,
    seen: Sequence[figures.Seen],
    shown: Sequence[tuple[int, Place]],
    of_class: bool,
    token: bool,
) -> None:
    """Two figures an image, in place of those of an earlier inspection."""
    for old in output.glob("image_*.png"):
        if re.fullmatch(r"image_\d+_(attention|rollout)\.png", old.name):
            old.unlink()
    for number, each in enumerate(seen):
        report.save(
            figures.maps_figure(each, [place for _, place in shown], of_class),
            output / f"image_{number}_attention.png",
        )
        report.save(figures.rollout_figure(each, token), output / f"image_{number}_rollout.png")
