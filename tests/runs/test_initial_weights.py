"""A run that begins with another run's weights."""

import csv

import pytest
import torch

from tests import blobs


def table(folder, name):
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def optimizer(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]


WORDS = ("--model.network.patch_size=2", "--model.schedule=constant")


@pytest.fixture
def fit(tmp_path, npz_file):
    def run(name, *words):
        return blobs.fit(tmp_path / name, npz_file, *WORDS, *words)

    return run


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    """The run whose weights the others begin with."""
    folder = tmp_path_factory.mktemp("trunk")
    return blobs.fit(folder, blobs.write(folder / "blobs.npz"), *WORDS, "--model.lr=0.01")


def test_it_begins_where_the_other_ended(fit, trunk):
    arm = fit("arm", f"--init_from={trunk}", "--protocol.crop_flip=null", "--trainer.max_epochs=1")
    # The table of an arm has the folder of another protocol.
    heads = table(next(arm.parent.parent.glob("*/version_0")), "heads.csv")
    ended = [list(row.values())[2:] for row in table(trunk, "heads.csv") if row["epoch"] == "2"]
    assert [list(row.values())[2:] for row in heads if row["epoch"] == "0"] == ended
    assert {row["step"] for row in heads if row["epoch"] == "0"} == {"0"}


@pytest.mark.parametrize("taken", [False, True])
def test_the_optimisers_moments_come_along_if_asked_for(fit, trunk, taken):
    checkpoint = trunk / "checkpoints/last.ckpt"
    arm = fit("arm", f"--init_from={checkpoint}", f"--init_optimizer={taken}", "--trainer.max_epochs=1")
    before, after = optimizer(trunk), optimizer(arm)
    assert {int(state["step"]) for state in before["state"].values()} == {6}
    assert {int(state["step"]) for state in after["state"].values()} == {9 if taken else 3}
    assert {group["lr"] for group in after["param_groups"]} == {0.02}  # its own rate


def test_resumed_it_keeps_its_own_weights(fit, trunk):
    begun = ("--init_from=" + str(trunk), "--init_optimizer=true")
    whole = fit("whole", *begun)
    fit("parts", *begun, "--trainer.max_epochs=1")
    resumed = fit("parts", *begun, "--ckpt_path=last")
    for name in ("metrics.csv", "heads.csv"):
        assert table(resumed, name) == table(whole, name)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("--model.network.embed_dim=18", "doesn't fit the model"),
        ("--init_from=nowhere.ckpt", "there is no checkpoint nowhere.ckpt"),
    ],
)
def test_what_cannot_be_begun_with(fit, trunk, tmp_path, capsys, change, sentence):
    with pytest.raises(SystemExit) as ended:
        fit("arm", f"--init_from={trunk}", change)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 1 and said.startswith("vitlocal: error: ") and sentence in said
    assert not list((tmp_path / "arm").rglob("heads.csv"))
