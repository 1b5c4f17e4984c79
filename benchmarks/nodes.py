"""STAGNN against GCN and GAT on the embedded graphs, by the same task: test accuracy at the best validation.

    python benchmarks/nodes.py [--seeds 10] [--epochs 60]

Each seed has a split, weights and, of the block model, a graph of its own. Intervals are 95 % of the mean,
by Student's t.
Needs the extra `graph`.
"""

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from scipy import stats

from vitlocal.data import BlockModel, GraphDataModule, Karate
from vitlocal.tasks import NodeClassification

GRAPHS: dict[str, Callable[[int], GraphDataModule]] = {
    "karate": lambda seed: Karate(split_seed=seed),
    "blocks, 2000 nodes": lambda seed: BlockModel(
        2000, eigenvectors=0, graph_seed=seed, split_seed=seed, homophily=0.5
    ),
}
NETWORKS = ("STAGNN", "GCN", "GAT")


def accuracy(network: str, data: GraphDataModule, seed: int, epochs: int) -> float:
    """Of the nodes that test, with the weights that were best on those that validate."""
    seed_everything(seed, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, monitor="val/acc1", mode="max")
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            callbacks=[best],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        task = NodeClassification(network)
        trainer.fit(task, data)
        task.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
        (found,) = trainer.test(task, data, verbose=False)
    return found["test/acc1"]


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for name, graph in GRAPHS.items():
        for network in NETWORKS:
            found = [accuracy(network, graph(seed), seed, options.epochs) for seed in range(options.seeds)]
            half = stats.t.ppf(0.975, len(found) - 1) * np.std(found, ddof=1) / len(found) ** 0.5
            print(f"{name:<20}{network:<8}{100 * np.mean(found):6.1f} +- {100 * half:.1f} %", flush=True)


if __name__ == "__main__":
    main()
