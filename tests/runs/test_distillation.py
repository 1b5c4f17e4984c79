"""A run that learns from a teacher, against the losses by a slow loop."""

import math

import pytest
import torch

from tests import blobs
from vitlocal.errors import InputError
from vitlocal.protocol import Protocol
from vitlocal.runs import Distillation, open_run
from vitlocal.runs.distillation import distance, divergence


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return blobs.write(tmp_path_factory.mktemp("data") / "blobs.npz")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, data):
    return blobs.fit(tmp_path_factory.mktemp("teacher"), data)


def test_the_divergence_by_the_formula():
    logits, wanted = torch.randn(2, 3, 4, dtype=torch.float64).float()
    total = 0.0
    for own, other in zip(logits, wanted, strict=True):
        p, q = (other / 1.5).softmax(0), (own / 1.5).softmax(0)
        total += sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(p, q, strict=True))
    assert divergence(logits, wanted, 1.5).item() == pytest.approx(1.5**2 * total / 3, rel=1e-4)


def test_the_distance_by_the_formula():
    own, wanted = torch.randn(2, 2, 3, 5, 4)
    lengths = [
        math.dist(a.tolist(), b.tolist()) for a, b in zip(own.view(-1, 4), wanted.view(-1, 4), strict=True)
    ]
    assert distance(list(own), list(wanted)).item() == pytest.approx(sum(lengths) / len(lengths), rel=1e-5)


def test_what_is_added_is_of_the_batch_s_images(teacher, small_data, make_trainer):
    """The loss of the first batch, and its gradients, by two plain forwards."""
    torch.manual_seed(0)
    student = open_run(teacher).load_module()
    for parameter in student.network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    weights = {name: value.clone() for name, value in student.state_dict().items()}
    seen = []

    class Watched(Distillation):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if not seen:
                seen.append((outputs["loss"].item(), {key: value.clone() for key, value in batch.items()}))

    callback = Watched(str(teacher), logit_weight=0.5, token_weight=0.25, temperature=3.0)
    trainer = make_trainer(callbacks=[callback, *Protocol(crop_flip=None).callbacks()])
    trainer.fit(student, small_data)
    assert not student.loss_terms
    student.hparams["multilabel"] = True
    with pytest.raises(InputError, match=r"give distillation\.logit_weight=0"):
        callback.on_fit_start(trainer, student)

    before, known = open_run(teacher).load_module().train(), open_run(teacher).load_module().eval()
    before.load_state_dict(weights)
    kept = {"own": [], "wanted": []}
    for name, module in (("own", before), ("wanted", known)):
        for block in module.network.blocks:
            block.register_forward_hook(lambda _, __, output, name=name: kept[name].append(output))
    (loss, batch) = seen[0]
    logits, wanted = before(batch["image"]), known(batch["image"])
    expected = torch.nn.functional.cross_entropy(logits, batch["target"])
    expected = expected + 0.5 * divergence(logits, wanted, 3.0) + 0.25 * distance(kept["own"], kept["wanted"])
    assert loss == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.slow
def test_it_brings_the_network_to_its_teacher(teacher, data, tmp_path):
    """From other weights, on the same images: nearer with the teacher than without."""
    known = open_run(teacher).load_module().eval()
    images = torch.randint(0, 256, (32, 3, 8, 8), dtype=torch.uint8)
    found = {}
    for name, words in {
        "alone": [],
        "taught": ["--distillation=Distillation", f"--distillation.teacher={teacher}"],
    }.items():
        run = blobs.fit(tmp_path / name, data, "--seed_everything=3", "--model.lr=0.005", *words)
        module = open_run(run).load_module().eval()
        with torch.no_grad():
            found[name] = divergence(module(images), known(images), 1.0).item()
        if words:  # the teacher is no part of what is saved
            assert set(module.state_dict()) == set(known.state_dict())
            assert open_run(run).config["distillation"]["init_args"]["teacher"] == str(teacher)
    assert found["taught"] < found["alone"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--distillation.logit_weight=-1"], "distillation.logit_weight is -1.0: it must be a number of 0"),
        (["--distillation.token_weight=-1"], "distillation.token_weight is -1.0"),
        (["--distillation.temperature=0"], "distillation.temperature is 0.0: it must be a number above 0"),
        (["--model.network.depth=3"], "has 2 layers of 16 features and 3 classes but the network has 3, 16"),
    ],
)
def test_what_does_not_fit_is_refused(teacher, data, tmp_path, capsys, words, sentence):
    given = ["--distillation=Distillation", f"--distillation.teacher={teacher}", *words]
    with pytest.raises(SystemExit) as ended:
        blobs.fit(tmp_path, data, *given)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code and said.startswith("vitlocal: error: ") and sentence in said
