"""Compares ways of doing one thing: in turn, in one run, with median, spread, ratio and machine."""

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from vitlocal.files import atomic_path

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("vitlocal", "torch", "torchvision", "lightning", "timm", "kornia", "numpy")


def rival(name: str) -> Any:
    """Import a library that vitlocal is compared with, or say how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        sys.exit(f"{name} is not installed: python -m pip install 'vitlocal[bench]' brings it")


@dataclass
class Row:
    """What one contender reached.

    Attributes:
        name: of the contender.
        seconds: of each repetition.
        rate: units a second, by the median.
        ratio: its time over the first contender's, by the medians, whatever their amounts.
        ratio_range: the lowest and highest of that ratio over the repetitions.
        extra: more columns.
    """

    name: str
    seconds: list[float]
    rate: float
    ratio: float
    ratio_range: tuple[float, float]
    extra: dict[str, Any] = field(default_factory=dict)


class Benchmark:
    """One question's tables, printed as they are measured and written to a JSON file at the end.

    Args:
        name: of the JSON file, and of the script.
        question: what is compared, in a sentence.
        parser: with the script's own arguments; those of every benchmark are added.
    """

    def __init__(self, name: str, question: str, parser: argparse.ArgumentParser | None = None) -> None:
        parser = parser or argparse.ArgumentParser()
        parser.description = question
        parser.add_argument("--repetitions", type=int, default=5, help="rounds of all contenders in turn")
        parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch, on the CPU")
        parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        parser.add_argument("--json", type=Path, default=RESULTS / f"{name}.json")
        self.args = parser.parse_args()
        if self.args.repetitions < 1 or self.args.threads < 1:
            parser.error("--repetitions and --threads must be at least 1")
        self.device = torch.device(self.args.device)
        self.name, self.question = name, question
        self.tables: list[dict[str, Any]] = []
        torch.set_num_threads(self.args.threads)
        print(f"# {question}\n\n{_sentence(self.machine)}")

    @property
    def machine(self) -> dict[str, Any]:
        """Hardware and versions."""
        cuda = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "versions": _versions(),
        }

    def synchronize(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def compare(
        self,
        title: str,
        contenders: Mapping[str, Callable[[], object]],
        amount: float | Mapping[str, float],
        unit: str,
        extra: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> list[Row]:
        """Time the contenders, each once a round after one round that is not counted.

        Args:
            title: of the table.
            contenders: what to call, by name; the first is what the others are compared with.
            amount: units done by one call, of each contender if they differ.
            unit: what is counted, such as images.
            extra: more columns, by contender and heading.

        Returns:
            A row a contender, in order.
        """
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for repetition in range(self.args.repetitions + 1):
            for name, call in contenders.items():
                self.synchronize()
                start = time.perf_counter()
                call()
                self.synchronize()
                if repetition:
                    times[name].append(time.perf_counter() - start)
        return self.add(title, times, amount, unit, extra)

    def add(
        self,
        title: str,
        times: Mapping[str, Sequence[float]],
        amount: float | Mapping[str, float],
        unit: str,
        extra: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> list[Row]:
        """Print and keep a table of seconds that were measured in turn; arguments as in :meth:`compare`."""
        first = next(iter(times.values()))
        rows = []
        for name, seconds in times.items():
            ratios = [other / own for own, other in zip(first, seconds, strict=True)]
            median = statistics.median(seconds)
            ratio = median / statistics.median(first)
            units = amount[name] if isinstance(amount, Mapping) else amount
            row = Row(name, list(seconds), units / median, ratio, (min(ratios), max(ratios)))
            row.extra = dict((extra or {}).get(name, {}))
            rows.append(row)
        self.tables.append({"title": title, "unit": unit, "rows": [asdict(row) for row in rows]})
        _print_table(title, unit, rows)
        return rows

    def note(self, text: str) -> None:
        """Print and keep a finding that is no timing."""
        self.tables.append({"note": text})
        print(f"\n{text}", flush=True)

    def finish(self) -> None:
        """Write the JSON file."""
        result = {
            "benchmark": self.name,
            "question": self.question,
            "command": " ".join(["python", *sys.argv]),
            "machine": self.machine,
            "repetitions": self.args.repetitions,
            "tables": self.tables,
        }
        with atomic_path(self.args.json) as path:
            path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"\nwritten to {self.args.json}")


def _print_table(title: str, unit: str, rows: Sequence[Row]) -> None:
    headings = list(dict.fromkeys(heading for row in rows for heading in row.extra))
    columns = ["", f"{unit}/s", "seconds: median (least to most)", "time over the first (range)", *headings]
    print(f"\n## {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        least, most = min(row.seconds), max(row.seconds)
        cells = [
            row.name,
            f"{row.rate:,.0f}" if row.rate >= 100 else f"{row.rate:.3g}",
            f"{statistics.median(row.seconds):.4g} ({least:.4g} to {most:.4g})",
            f"{row.ratio:.3g} ({row.ratio_range[0]:.3g} to {row.ratio_range[1]:.3g})",
            *(str(row.extra.get(heading, "")) for heading in headings),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _sentence(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    device = "" if machine["device"] == "cpu" else f"{machine['device']}; "
    return (
        f"{device}{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads; "
        f"Python {machine['python']}, {versions}"
    )
