import threading
import time

import pandas as pd
import pytest
import yaml
from ray.cluster_utils import Cluster

from tests.study.test_command import STUDY
from vitlocal.cli import main
from vitlocal.study import ray_cluster
from vitlocal.study.plan import Cell


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The words of a study by Ray in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return ["study", "--config=tiny.yaml", "--engine=ray"]


@pytest.mark.slow
def test_two_nodes_of_which_one_is_killed_half_way(study, tmp_path, capsys):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        node, _ = (cluster.add_node(num_cpus=1) for _ in range(2))
        for words, sentence in (
            (["--cpus=64"], "no node of the cluster has 64 cores"),
            (["--gpus=1"], "has 1 cores and 1 GPUs"),
        ):
            with pytest.raises(SystemExit):
                main([*study, f"--address={cluster.address}", *words])
            assert sentence in capsys.readouterr().err

        def kill():
            until = time.monotonic() + 120
            while len(list(tmp_path.rglob("last.ckpt"))) < 2 and time.monotonic() < until:
                time.sleep(0.02)
            cluster.remove_node(node, allow_graceful=False)

        thread = threading.Thread(target=kill)
        thread.start()
        main([*study, f"--address={cluster.address}", "--fit=--trainer.max_epochs=15", "--output=out"])
        thread.join()
    finally:
        cluster.shutdown()
    said = capsys.readouterr().err
    assert "interrupted after" in said and "running from epoch" in said  # the node's cell, on the other one
    runs = pd.read_csv("out/results/runs.csv")
    assert runs["condition"].tolist() == ["modern", "baseline"] and runs["finished"].all()
    assert not list(tmp_path.glob("out/.ray*"))


def test_a_node_that_does_not_see_the_study_sends_the_cell(tmp_path, monkeypatch):
    def run(cell, environment, stop):
        cell.folder.mkdir()
        (cell.folder / "log.txt").write_text(environment["OMP_NUM_THREADS"])

    monkeypatch.setattr(ray_cluster.cells, "run", run)
    cell = Cell("digits", "c", 0, tmp_path / "study" / "cells", (), (), "f", {}, 1)
    content = ray_cluster._run(cell, str(tmp_path / "nowhere"), "/nowhere", 3)
    assert not cell.folder.exists()
    ray_cluster._unpack(content, cell.folder)
    assert (cell.folder / "log.txt").read_text() == "3"


def test_no_cluster_there(study, capsys):
    with pytest.raises(SystemExit):
        main([*study, "--address=127.0.0.1:1"])
    assert "address 127.0.0.1:1: no cluster answers there" in capsys.readouterr().err
