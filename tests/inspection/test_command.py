import csv
import re
import shutil
from functools import wraps
from inspect import signature
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.blobs import fit
from vitlocal.cli import main
from vitlocal.data import Digits
from vitlocal.errors import InputError
from vitlocal.heads import find_attention
from vitlocal.heads.functional import STATISTICS
from vitlocal.heads.kinds import head_kind
from vitlocal.heads.rollout import rollout_step
from vitlocal.inspection import command
from vitlocal.inspection.command import inspect
from vitlocal.models import attention_weights
from vitlocal.runs import open_run
from vitlocal.runs.trained import trained_subject

FIGURES = {"mad.png", "entropy.png", "entropy_mad.png"}


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "blobs.npz"
    arrays = {}
    for split, count in (("train", 24), ("val", 13), ("test", 7)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 8, 12, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 3)[:, None].astype(np.uint8)
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, blobs):
    torch.set_num_threads(1)
    return fit(tmp_path_factory.mktemp("run"), blobs, "--trainer.precision=32-true")


@pytest.fixture
def run(tmp_path, trained):
    return shutil.copytree(trained, tmp_path / "version_0")


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def measured(said):
    return said["geometry"]["unit"], said["geometry"]["class_token"]


def compare(run, inspected):
    expected = [row for row in table(run / "heads.csv") if row["epoch"] == "2"]
    found = table(inspected / "heads.csv")
    assert len(found) == len(expected) == 4
    for row, other in zip(found, expected, strict=True):
        assert (row["layer"], row["head"]) == (other["layer"], other["head"])
        for name in STATISTICS:
            assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-5)
    assert len({row["mad"] for row in found}) == 4


def test_a_run_gives_the_table_of_its_last_epoch(run, capsys):
    inspect(str(run / "checkpoints" / "last.ckpt"))
    compare(run, run / "inspect")
    names = {path.name for path in (run / "inspect").iterdir()}
    drawn = {f"image_{number}_{kind}.png" for number in range(4) for kind in ("attention", "rollout")}
    assert names == FIGURES | drawn | {"heads.csv", "inspect.yaml"}
    for name in FIGURES | drawn:
        assert matplotlib.image.imread(run / "inspect" / name).std() > 0.01
    said = yaml.safe_load((run / "inspect" / "inspect.yaml").read_text())
    assert said["number_of_images"] == 13 and said["images"] == "blobs" and said["weights"] == "trained"
    assert said["geometry"] == {
        "kind": "Grid",
        "num_prefix_tokens": 1,
        "unit": "grid",
        "class_token": "drop",
        "height": 2,
        "width": 3,
        "patch_size": [4, 4],
    }
    lines = capsys.readouterr().out.splitlines()
    rows = table(run / "inspect" / "heads.csv")
    for layer in (0, 1):
        mad = [float(row["mad"]) for row in rows if row["layer"] == str(layer)]
        words = re.split(r"\s{2,}", lines[1 + layer].strip())
        least = [row for row in rows if row["layer"] == str(layer)][int(np.argmin(mad))]
        masses = [float(least[name]) for name in ("self_mass", "class_mass", "window_mass")]
        assert words[0] == str(layer) and words[4:6] == [head_kind(*masses), least["head"]]
        expected = [min(mad), *masses[:2]]
        assert [float(word) for word in words[1:4]] == pytest.approx(expected, abs=1e-4)
        assert float(words[6]) == pytest.approx(np.mean(mad), abs=1e-4)
    assert lines[3].startswith("uniform") and str(run / "inspect") in lines[-1]


def test_a_run_in_other_precision_unit_and_with_the_class_token(tmp_path, blobs):
    options = ["--locality.unit=pixels", "--locality.class_token=keep", "--locality.max_images=6"]
    run = fit(tmp_path, blobs, "--trainer.precision=bf16-mixed", *options)
    inspect(str(run / "checkpoints" / "last.ckpt"), max_images=6, maps=0)
    compare(run, run / "inspect")
    said = yaml.safe_load((run / "inspect" / "inspect.yaml").read_text())
    assert (*measured(said), said["precision"]) == ("pixels", "keep", "bf16-mixed")
    inspect(
        str(run / "checkpoints" / "last.ckpt"), unit="grid", class_token="drop", precision="32-true", maps=0
    )
    said = yaml.safe_load((run / "inspect" / "inspect.yaml").read_text())
    assert (*measured(said), said["precision"]) == ("grid", "drop", "32-true")


def test_mixed_images_show_what_crosses_borders(run):
    inspect(str(run / "checkpoints" / "last.ckpt"), mixed=True, maps=0)
    rows = table(run / "inspect" / "heads.csv")
    for row in rows:
        mass, position, content = (float(row[f"border_{name}"]) for name in ("mass", "position", "content"))
        assert 0.3 < mass < 1.7 and mass == pytest.approx(position + content, abs=1e-4)
    inspect(str(run / "checkpoints" / "last.ckpt"), maps=0)
    assert "border_mass" not in table(run / "inspect" / "heads.csv")[0]


def test_the_folder_of_a_run_means_its_best_checkpoint(run):
    inspect(str(run), maps=0)
    by_folder = (run / "inspect" / "heads.csv").read_text()
    inspect(str(run / "checkpoints" / "best.ckpt"), maps=0)
    assert (run / "inspect" / "heads.csv").read_text() == by_folder
    (run / "checkpoints" / "best.ckpt").unlink()
    inspect(str(run), maps=0)
    compare(run, run / "inspect")


def test_maps_and_rollout_are_of_the_weights(run, blobs, monkeypatch):
    kept = []
    monkeypatch.setattr(command, "_draw_images", lambda output, seen, *rest: kept.extend(seen))
    checkpoint = run / "checkpoints" / "last.ckpt"
    inspect(str(checkpoint), layers=[1], heads=[1, 0], maps=2)
    inspect(str(checkpoint), layers=[0], heads=[1], maps=1, query="class")
    subject = trained_subject(open_run(checkpoint)).eval()
    layers = []
    for _, module in find_attention(subject):
        module.register_forward_hook(lambda own, inputs, _: layers.append(attention_weights(own, inputs[0])))
    with np.load(blobs) as arrays, torch.no_grad():
        images = torch.from_numpy(arrays["val_images"][:2]).permute(0, 3, 1, 2)
        subject(images)
    rollout = None
    for layer in layers:
        rollout = rollout_step(layer, rollout)
    rollout = rollout[:, 0, 1:].unflatten(-1, (2, 3))
    assert len(kept) == 3
    for number, seen in enumerate(kept[:2]):
        assert torch.equal(seen.image, images[number]) and seen.name == f"image {number} of blobs"
        # The centre of a 2x3 grid is row 1, column 1: the fifth patch, after the class token.
        expected = layers[1][number, [1, 0], 5, 1:].unflatten(-1, (2, 3))
        (maps,) = seen.maps
        torch.testing.assert_close(maps, expected)
        torch.testing.assert_close(seen.rollout, rollout[number])
    torch.testing.assert_close(kept[2].maps[0], layers[0][0, [1], 0, 1:].unflatten(-1, (2, 3)))


def test_pictures_of_an_earlier_inspection_go(run):
    output = run / "inspect"
    output.mkdir()
    for name in ("image_17_rollout.png", "image_of_mine.png"):
        (output / name).touch()
    inspect(str(run), layers=[1], heads=[1], maps=1, query="class")
    assert {path.name for path in output.glob("image*")} == {
        "image_0_attention.png",
        "image_0_rollout.png",
        "image_of_mine.png",
    }


def test_a_library_s_model_on_a_data_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    inspect("timm:test_vit3", data="digits.yaml", max_images=3, maps=1)
    output = tmp_path / "lightning_logs" / "inspect-timm-test_vit3"
    said = yaml.safe_load((output / "inspect.yaml").read_text())
    assert said["images"] == "digits" and said["number_of_images"] == 3 and said["weights"] == "random"
    assert (output / "image_0_rollout.png").is_file()
    assert "random weights" in capsys.readouterr().out


def test_a_folder_of_images(tmp_path, run, recwarn):
    for name in ("some.png", "$x_$ \u5b57 \udcff" + 200 * "n" + ".png"):
        matplotlib.image.imsave(tmp_path / name, np.random.default_rng(0).random((9, 9, 3)))
    inspect(str(run), images=tmp_path, output=tmp_path / "out", maps=5)
    assert yaml.safe_load((tmp_path / "out" / "inspect.yaml").read_text())["number_of_images"] == 2
    assert len(list((tmp_path / "out").glob("image_*.png"))) == 4
    assert not list((tmp_path / "out").glob(".*"))
    assert not [str(each.message) for each in recwarn if "Glyph" in str(each.message)]


def test_the_command_line(run, blobs, tmp_path):
    words = [str(run), "--data=NPZ", f"--data.path={blobs}", "--query=class", "--max_images", "3", "--maps=1"]
    main(["inspect", *words, f"--output={tmp_path / 'out'}", "--layers", "1", "0", "--heads=1"])
    said = yaml.safe_load((tmp_path / "out" / "inspect.yaml").read_text())
    assert (said["images"], said["number_of_images"], said["weights"]) == ("blobs", 3, "trained")
    assert (tmp_path / "out" / "image_0_attention.png").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["--layers", "0", "3"], {"layers": [0, 3]}),
        (["--layers=[0, 3]", "--heads=2"], {"layers": [0, 3], "heads": [2]}),
        (["--heads", "1,2", "--device=cpu"], {"heads": [1, 2], "device": "cpu"}),
        (["--data", "digits.yaml", "--pretrained"], {"data": "digits.yaml", "pretrained": True}),
        (["--images", "some", "--unit", "pixels"], {"images": Path("some"), "unit": "pixels"}),
    ],
    ids=" ".join,
)
def test_words_and_what_they_mean(words, expected, monkeypatch):
    given = {}
    monkeypatch.setattr(command, "inspect", spy(given))
    main(["inspect", "timm:vit", *words])
    defaults = {name: each.default for name, each in signature(inspect).parameters.items()}
    assert given == defaults | {"model": "timm:vit"} | expected


def spy(given):
    @wraps(inspect)
    def inspect_of_test(*args, **kwargs):
        assert not args
        given.update(kwargs)

    return inspect_of_test


def test_a_data_set_with_its_settings(monkeypatch):
    given = {}
    monkeypatch.setattr(command, "inspect", spy(given))
    main(["inspect", "run", "--data", "Digits", "--data.batch_size=8"])
    assert isinstance(given["data"], Digits) and given["data"].batch_size == 8


def test_help(capsys):
    with pytest.raises(SystemExit) as left:
        main(["inspect", "--help"])
    assert left.value.code == 0
    words = capsys.readouterr().out.split()
    assert words[:3] == ["usage:", "vitlocal", "inspect"]
    assert {f"--{name}" for name in signature(inspect).parameters if name != "model"} <= set(words)
    assert "Folder of images to use instead." in " ".join(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "model"),
        (["run", "--laiers", "0"], "there is no key laiers; perhaps layers is meant"),
        (["run", "--lay", "0"], "there is no key lay; perhaps layers is meant"),
        (["run", "other"], "other is not understood here"),
        (["run", "--layers"], "expected at least one argument"),
        (["run", "--query=klass"], "query: Expected a typing.Literal['centre', 'class']. Got value: klass"),
        (["run", "--unit=mm"], "'pixels', 'tokens', 'share', 'hops']; given is mm"),
        (["run", "--max_images=many"], "max_images: Expected a <class 'int'>. Got value: many"),
        (
            ["run", "--data=Digits", "--data.batch_size=x"],
            "batch_size: Expected a <class 'int'>. Got value: x",
        ),
        (["run", "--data=Digits", "--data.batchsize=8"], "perhaps data.batch_size is meant"),
    ],
    ids=" ".join,
)
def test_words_that_are_wrong(words, said, capsys):
    with pytest.raises(SystemExit) as left:
        main(["inspect", *words])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vitlocal: error: ") and said in line


@pytest.mark.parametrize("words", [["--layers", "0", "x"], ["--heads=0.5"], ["--layers=[0;3]"]], ids=" ".join)
def test_numbers_that_are_none(words, capsys):
    with pytest.raises(SystemExit):
        main(["inspect", "run", *words])
    assert re.search(r"(layers|heads) is .*: give whole numbers, such as 0 3", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "nothing"}, "nothing: there is no such run or checkpoint, nor does it begin with timm:"),
        ({"model": "timm:"}, "give a name after the colon"),
        ({"model": "."}, "there is no checkpoint in"),
        ({"model": __file__}, "is no whole checkpoint"),
        ({"pretrained": True}, "has its own weights"),
        ({"max_images": 0}, "max_images is 0"),
        ({"maps": -1}, "maps is -1"),
        ({"layers": [0, 2]}, r"layers is \[0, 2\]: the model has layers 0 to 1"),
        ({"layers": []}, "the model has layers 0 to 1"),
        ({"heads": [2]}, r"heads is \[2\]: the model has heads 0 to 1"),
        ({"heads": [-1]}, r"heads is \[-1\]"),
        ({"data": "digits.yaml", "images": "."}, "give one of them"),
        ({"data": "nowhere.yaml"}, "nowhere.yaml: there is no such file"),
        ({"data": "modern.yaml"}, "has no key data"),
        ({"data": "Digitz"}, "data is 'Digitz': it must be .*Digits"),
        ({"data": "npz.yaml"}, "path"),
        ({"device": "abacus"}, "device is abacus"),
        ({"output": Path(__file__)}, r"output .*test_command\.py is a file: give a folder"),
    ],
    ids=str,
)
def test_wrong_input(options, said, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        inspect(**({"model": str(run)} | options))
    assert not (run / "inspect").exists()
    assert not (tmp_path / "lightning_logs").exists()


def test_a_checkpoint_alone_needs_images(run, tmp_path):
    path = shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "alone.ckpt")
    with pytest.raises(InputError, match=r"on which images to inspect .*alone\.ckpt"):
        inspect(str(path))
    inspect(str(path), data="Digits", max_images=2, maps=0)
    assert (tmp_path / "inspect" / "heads.csv").is_file()


@pytest.mark.parametrize(
    "part", [{"trainer": None, "locality": None}, {"trainer": 3, "locality": [1]}], ids=str
)
def test_a_configuration_without_some_part(part, run):
    path = run / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | part))
    inspect(str(run), maps=0)
    said = yaml.safe_load((run / "inspect" / "inspect.yaml").read_text())
    assert (*measured(said), said["precision"]) == ("grid", "drop", "32-true")


@pytest.mark.parametrize("spoil", ["shape", "value", "facts"])
def test_a_spoilt_checkpoint(spoil, run):
    path = run / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    weight = content["state_dict"]["network.blocks.0.attn.qkv.weight"]
    if spoil == "shape":
        content["state_dict"]["network.blocks.0.attn.qkv.weight"] = weight[1:]
    elif spoil == "value":
        weight.fill_(torch.nan)
    else:
        content["hyper_parameters"]["unknown"] = 1
    torch.save(content, path)
    with pytest.raises(InputError, match="is not finite" if spoil == "value" else "can't be restored"):
        inspect(str(run))


def test_a_network_without_class_token(tmp_path, blobs):
    run = fit(tmp_path, blobs, "--model.network.global_pool=avg", "--trainer.max_epochs=1")
    with pytest.raises(InputError, match="has no class token: give centre"):
        inspect(str(run), query="class")
    inspect(str(run), maps=1)
    assert (run / "inspect" / "image_0_rollout.png").is_file()


SHORT = ("--model.network.patch_size=4", "--trainer.max_epochs=1")


@pytest.mark.parametrize("resize", ["pad", "squash"])
def test_a_folder_is_inspected_as_it_was_trained_on(tmp_path, resize):
    for number, split in enumerate(("train/a", "train/b", "val/a", "val/b")):
        (tmp_path / "pets" / split).mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pets" / split / "x.png")
    words = ["--config=image_folder.yaml", f"--data.path={tmp_path / 'pets'}", f"--data.resize={resize}"]
    run = fit(tmp_path, "unused", *words, "--data.image_size=[8,12]", *SHORT)
    inspect(str(run), output=tmp_path / "data", maps=0)
    inspect(str(run), images=tmp_path / "pets/val", output=tmp_path / "folder", maps=0)
    assert table(tmp_path / "data/heads.csv") == table(tmp_path / "folder/heads.csv")
