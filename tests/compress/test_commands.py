import csv
import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.blobs import fit, write
from vitlocal.cli import main
from vitlocal.compress import export as export_module
from vitlocal.compress import onnx_model
from vitlocal.compress.export import export
from vitlocal.compress.quantize import quantize
from vitlocal.compress.trained_run import training_batches
from vitlocal.data import NPZ
from vitlocal.errors import InputError
from vitlocal.runs import open_run
from vitlocal.runs.trained import trained_subject

SMALL = {"calibration_batches": 2, "batch_size": 8, "repeats": 2}


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "blobs.npz")


@pytest.fixture(scope="module")
def run(tmp_path_factory, blobs):
    return fit(tmp_path_factory.mktemp("run"), blobs)


@pytest.fixture(scope="module")
def subject(run):
    return trained_subject(open_run(run)).eval()


@pytest.fixture(scope="module")
def quantized(run, tmp_path_factory):
    output = tmp_path_factory.mktemp("quantized")
    return output, quantize(run, output=output, seeds=[0, 1], **SMALL)


@pytest.fixture
def validation(blobs):
    with np.load(blobs) as arrays:
        return torch.from_numpy(arrays["val_images"].transpose(0, 3, 1, 2)), arrays["val_labels"][:, 0]


def test_onnx_files_tell_the_class_names(quantized, run, tmp_path):
    export(run, tmp_path / "x.onnx")
    for path in (tmp_path / "x.onnx", quantized[0] / "fp32.onnx", quantized[0] / "int8.onnx"):
        told = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
        assert json.loads(told["class_names"]) == ["0", "1", "2"] and json.loads(told["resize"]) == "crop"


@torch.no_grad()
def test_quantize_writes_what_it_found(quantized, subject, validation):
    output, found = quantized
    images, labels = validation
    names = {path.name for path in output.iterdir()}
    assert names == {"quantize.csv", "quantize.md", "latency.csv", "fp32.onnx", "int8.onnx"}
    with (output / "quantize.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found)
    assert [row["part"] for row in rows[:3]] == ["fp32", "w8a8", "w8a8"]
    logits = subject(images)
    assert float(rows[0]["acc1"]) == np.mean(logits.argmax(1).numpy() == labels)
    assert {row["name"] for row in rows if row["part"] == "layer"} == {
        *("patch embedding", "block 0", "block 1", "head")
    }
    assert "scores" in {row["name"] for row in rows if row["part"] == "tensor"}
    assert all(row["images"] == "13" for row in rows)

    session = onnxruntime.InferenceSession(output / "int8.onnx")
    given = session.run(None, {"image": images.numpy()})[0]
    last = rows[-1]
    assert last["part"] == "int8" and last["seed"] == "0"
    assert float(last["acc1"]) == np.mean(given.argmax(1) == labels)
    centred, reference = (x - x.mean(1, keepdims=True) for x in (given, logits.numpy()))
    error = np.linalg.norm(centred - reference) / np.linalg.norm(reference)
    assert float(last["logit_error"]) == pytest.approx(error, rel=1e-3)
    assert 0 < error < 0.3

    with (output / "latency.csv").open(newline="") as file:
        timed = list(csv.DictReader(file))
    assert [(row["model"], row["batch"]) for row in timed] == [
        *(("fp32", "1"), ("int8", "1"), ("fp32", "128"), ("int8", "128"))
    ]
    assert all(0 < float(r["low_ms"]) <= float(r["median_ms"]) <= float(r["high_ms"]) for r in timed)
    assert int(timed[1]["bytes"]) == (output / "int8.onnx").stat().st_size
    report = (output / "quantize.md").read_text()
    assert "mean ± sd of 2 seeds" in report and "Which layer loses most" in report


def test_int8_ranges_are_a_running_average(quantized, blobs):
    """The image is the first tensor quantized: its scale, by hand."""
    output, _ = quantized
    data = NPZ(path=str(blobs))
    data.setup()
    first, second = training_batches(data, 2, 8, seed=0)
    model = onnx.load(output / "int8.onnx")
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    dequantize = next(node for node in model.graph.node if node.output[0] == conv.input[0])
    mean, std = (torch.tensor(x).view(-1, 1, 1) * 255 for x in (data.mean, data.std))
    ends = [((batch - mean) / std).aminmax() for batch in (first, second)]
    low, high = (0.9 * float(one) + 0.1 * float(other) for one, other in zip(*ends, strict=True))
    assert weights[dequantize.input[1]].item() == pytest.approx((high - low) / 255, rel=1e-5)
    assert np.dtype("int8") in {array.dtype for array in weights.values()}


def test_without_int8(run, tmp_path):
    words = [f"--ckpt_path={run}", f"--output={tmp_path}", "--seeds=[3]", "--int8=false", "--max_images=6"]
    main(["quantize", *words, "--sensitivity_images=0", "--calibration_batches=1", "--batch_size=4"])
    assert {path.name for path in tmp_path.iterdir()} == {"quantize.csv", "quantize.md"}
    with (tmp_path / "quantize.csv").open(newline="") as file:
        assert [(row["part"], row["seed"], row["images"]) for row in csv.DictReader(file)] == [
            *(("fp32", "", "6"), ("w8a8", "3", "6"))
        ]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--model.network.attention=ClippedSoftmax", "--model.network.global_pool=avg"],
        ["--model.network.attention=Gated"],
    ],
)
def test_onnx_gives_the_same_logits(options, run, blobs, tmp_path, validation, capsys):
    trained = fit(tmp_path, blobs, *options) if options else run
    export(trained, tmp_path / "vit.onnx")
    assert "gives PyTorch's logits on 13 validation images" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "vit.onnx")
    images, _ = validation
    expected = trained_subject(open_run(trained)).eval()(images).detach()
    for count in (1, 13):
        given = session.run(None, {"image": images[:count].numpy()})[0]
        np.testing.assert_allclose(given, expected[:count].numpy(), rtol=1e-4, atol=1e-5)


def test_onnx_that_differs_is_not_kept(run, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_model.OnnxModel, "__call__", lambda self, images: torch.zeros(len(images), 3))
    with pytest.raises(InputError, match=r"vit\.onnx is not written: .* differ from PyTorch's"):
        export_module.export(run, tmp_path / "vit.onnx")
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def test_safetensors_loads_into_timm(run, subject, tmp_path, validation):
    path = tmp_path / "vit.safetensors"
    export(run, path)
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["hyperparameters"])
    sizes = facts["network"]["init_args"]
    vit = timm.models.VisionTransformer(
        img_size=facts["image_size"],
        in_chans=facts["in_channels"],
        num_classes=facts["num_classes"],
        **{name: sizes[name] for name in ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")},
    )
    vit.load_state_dict(load_file(path))
    images, _ = validation
    mean, std = (torch.tensor(facts[name]).view(-1, 1, 1) * 255 for name in ("mean", "std"))
    torch.testing.assert_close(vit.eval()((images - mean) / std), subject(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seeds": []}, r"seeds is \[\]: give different whole numbers"),
        ({"seeds": [1, 1]}, "seeds is"),
        ({"batch_size": 0}, "batch_size is 0: give at least 1"),
        ({"max_images": 0}, "max_images is 0: give at least 1"),
        ({"sensitivity_images": -1}, "sensitivity_images is -1: give at least 0"),
        ({}, "has 24 training images, fewer than 16 batches of 32"),
        ({"data": "digits.yaml"}, r"the model has image_size \(8, 8\) but the data set digits has"),
    ],
)
def test_quantize_refuses(run, tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        quantize(run, output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_quantize_refuses_files_and_weights(run, tmp_path):
    taken = tmp_path / "file"
    taken.touch()
    with pytest.raises(InputError, match="is a file: give a folder"):
        quantize(run, output=taken, **SMALL)
    content = torch.load(open_run(run).checkpoint, weights_only=True)
    content["state_dict"]["network.head.bias"][:] = torch.nan
    torch.save(content, tmp_path / "nan.ckpt")
    with pytest.raises(InputError, match="isn't known on which images"):
        quantize(tmp_path / "nan.ckpt", **SMALL)
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    with pytest.raises(InputError, match=r"logits of .* are not finite"):
        quantize(tmp_path / "nan.ckpt", **SMALL)


@pytest.mark.parametrize(
    ("name", "sentence"), [("vit.pt", r"ends in \.onnx or \.safetensors"), ("folder.onnx", "is a folder")]
)
def test_export_refuses(run, tmp_path, name, sentence):
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(InputError, match=sentence):
        export(run, tmp_path / name)


def test_a_missing_package_is_named(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for call in (lambda: export(run, tmp_path / "vit.onnx"), lambda: quantize(run, **SMALL)):
        with pytest.raises(InputError, match=r"onnxruntime .*pip install 'vitlocal\[compress\]'"):
            call()
