"""What becomes of a ViT with subtree attention, and of a graph network, where networks are made smaller."""

import pytest

from tests.blobs import fit, write
from vitlocal.cli import main
from vitlocal.compress.export import export
from vitlocal.compress.prune.command import prune
from vitlocal.compress.quantize import quantize
from vitlocal.errors import InputError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = write(tmp_path_factory.mktemp("data") / "blobs.npz")
    attention = ["--model.network.attention=Subtree", "--model.network.attention.num_hops=2"]
    return fit(tmp_path_factory.mktemp("run"), data, *attention, "--locality=null")


def test_it_is_quantized_and_exported(run, tmp_path):
    export(run, tmp_path / "x.onnx")  # which compares its logits with PyTorch's
    small = {"calibration_batches": 2, "batch_size": 4, "sensitivity_images": 0, "repeats": 1}
    found = quantize(run, output=tmp_path / "int8", seeds=[0], **small)
    assert [row.part for row in found] == ["fp32", "w8a8", "int8"]
    accuracies = [row.acc1 for row in found]
    assert max(accuracies) - min(accuracies) <= 2 / 13


def test_its_heads_are_not_cut_out(run, tmp_path):
    with pytest.raises(InputError, match="heads can't be cut out of Subtree, whose other heads") as caught:
        prune(run, [2.0], output=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_run_on_a_graph_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(
        ["fit", "--config=karate.yaml", "--trainer.max_epochs=1", "--locality=null", "--trainer.logger=false"]
    )
    (graph,) = tmp_path.glob("lightning_logs/*/version_0")
    sentence = "is of NodeClassification, whose data are no images: give a run that was trained on images"
    for command in (
        lambda: export(graph, tmp_path / "x.onnx"),
        lambda: quantize(graph, int8=False),
        lambda: prune(graph, [2.0]),
    ):
        with pytest.raises(InputError, match=sentence):
            command()
