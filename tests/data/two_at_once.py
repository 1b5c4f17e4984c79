"""Processes that prepare the same data set at the same moment; run as a script, it is one of them."""

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from torchvision.datasets import CIFAR10 as READER

from tests.data import official
from vitlocal.data import CIFAR10, TinyImageNet
from vitlocal.data.download import RemoteFile


def cifar10_spec(made, source):
    """What a process needs to fetch a made CIFAR-10 from ``source``."""
    return {"kind": "cifar10", "reader": {**made.reader, "url": source}, "size": made.size}


def tiny_imagenet_spec(remote, source):
    """What a process needs to fetch a made Tiny-ImageNet from ``source``."""
    return {"kind": "tiny_imagenet", "remote": asdict(replace(remote, sources=(source,)))}


def run(specs, folder, count=2, seconds=180):
    """Start the processes and let them prepare the data sets, one after the other, from the same moment on.

    Returns:
        Their exit codes and what they said.
    """
    signals = [folder.parent / f"{folder.name}-ready-{number}" for number in range(count)]
    go = folder.parent / f"{folder.name}-go"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.data.two_at_once", json.dumps(specs), folder, ready, go],
            cwd=Path(official.__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for ready in signals
    ]
    try:
        deadline = time.monotonic() + seconds
        while not all(ready.exists() for ready in signals) and time.monotonic() < deadline:
            time.sleep(0.02)
        go.touch()
        said = [process.communicate(timeout=max(1, deadline - time.monotonic()))[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait(10)
    return [process.returncode for process in processes], said


def data_module(spec, folder):
    if spec["kind"] == "cifar10":
        for name, value in spec["reader"].items():
            setattr(READER, name, value)
        CIFAR10.archive_size = spec["size"]
        return CIFAR10(path=folder)
    TinyImageNet.remote = RemoteFile(**spec["remote"])
    return TinyImageNet(path=f"{folder}/{TinyImageNet.remote.name}")


def main(specs, folder, ready, go):
    modules = [data_module(spec, folder) for spec in json.loads(specs)]
    Path(ready).touch()
    while not Path(go).exists():
        time.sleep(0.001)
    for module in modules:
        module.prepare_data()


if __name__ == "__main__":
    main(*sys.argv[1:])
