"""Sequences: what is a target, what counts as right, the schedule, and a run that resumes bit for bit."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback

from vitlocal.data import LIS, Arithmetic, Digits
from vitlocal.errors import InputError
from vitlocal.runs import ProcessStates
from vitlocal.tasks import SequenceModeling
from vitlocal.tasks.sequences import following

SMALL = {
    "class_path": "vitlocal.models.Decoder",
    "init_args": {"embed_dim": 16, "depth": 1, "num_heads": 2},
}


def arithmetic(tmp_path, form="chain"):
    return Arithmetic(
        form=form,
        operators=2,
        p=3,
        train_size=64,
        val_size=21,
        test_size=8,
        batch_size=16,
        path=str(tmp_path),
    )


def test_targets_follow_the_problem(tmp_path):
    data = arithmetic(tmp_path)
    data.setup()
    batch = data._datasets["val"].__getitems__([0, 1, -1])
    targets = following(batch)
    for row in range(3):
        start, end = int(batch["start"][row]), int(batch["end"][row])
        for place in range(data.max_length):
            wanted = start <= place + 1 < end
            assert targets[row, place] == (batch["tokens"][row, place + 1] if wanted else -1)
    assert (targets[2] == -1).all()


@pytest.mark.parametrize("form", ["direct", "chain"])
def test_loss_and_accuracy_are_those_of_a_slow_loop(form, tmp_path, make_trainer):
    data, module = arithmetic(tmp_path, form), SequenceModeling(SMALL, lr=0.01, warmup_epochs=0)
    trainer = make_trainer(max_epochs=3)
    trainer.fit(module, data)
    measured = trainer.callback_metrics
    module.eval()
    losses, right = [], []
    equals = data.vocabulary["="]
    for row in torch.from_numpy(data._datasets["val"].tokens.astype("int64")):
        tokens = row[row != 0].tolist()
        start = tokens.index(equals) + 1
        end = start + 1 if form == "direct" else len(tokens)
        with torch.no_grad():
            logits = module(torch.tensor([tokens]))[0]
        losses += [F.cross_entropy(logits[k - 1], torch.tensor(tokens[k])).item() for k in range(start, end)]
        if form == "direct":
            right.append(int(logits[start - 1].argmax()) == tokens[start])
            continue
        own = tokens[:start]
        while len(own) < data.max_length and (len(own) == start or own[-1] != 2):
            with torch.no_grad():
                own.append(int(module(torch.tensor([own]))[0, -1].argmax()))
        last = len(own) - own[::-1].index(equals)
        right.append(own[last:] == tokens[-2:])
    assert float(measured["val/loss"]) == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert float(measured["val/acc1"]) == pytest.approx(sum(right) / len(right))


def test_a_whole_chain_has_to_be_right(tmp_path, make_trainer):
    data = LIS(length=4, train_size=32, val_size=16, test_size=4, batch_size=16, path=str(tmp_path))
    module = SequenceModeling(SMALL, lr=0.01, warmup_epochs=0)
    trainer = make_trainer(max_epochs=2)
    trainer.fit(module, data)
    assert not data.greedy
    batch = next(iter(data.val_dataloader()))
    module.eval()
    with torch.no_grad():
        found = module(batch["tokens"]).argmax(-1)
    right = [
        all(found[row, k - 1] == batch["tokens"][row, k] for k in range(start, end))
        for row, (start, end) in enumerate(zip(batch["start"].tolist(), batch["end"].tolist(), strict=True))
    ]
    assert float(trainer.callback_metrics["val/acc1"]) == pytest.approx(sum(right) / len(right))


class Saves(Callback):
    """Saves within the second epoch, as a run that is interrupted does."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 6:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_run_that_resumes_is_the_one_that_was_not_interrupted(by_epoch, tmp_path, make_trainer):
    def fit(*callbacks, ckpt_path=None):
        torch.manual_seed(3)
        module = SequenceModeling(SMALL, lr=0.01, warmup_epochs=1, schedule_by_epoch=by_epoch)
        trainer = make_trainer(max_epochs=3, callbacks=[ProcessStates(), *callbacks])
        trainer.fit(module, arithmetic(tmp_path), ckpt_path=ckpt_path)
        return module.state_dict()

    whole = fit(Saves(tmp_path / "half.ckpt"))
    resumed = fit(ckpt_path=tmp_path / "half.ckpt")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_other_data_than_it_was_trained_on_are_refused(tmp_path, make_trainer):
    data, module = arithmetic(tmp_path), SequenceModeling(SMALL)
    make_trainer(fast_dev_run=1).fit(module, data)
    other = Arithmetic(operators=2, p=5, train_size=4, val_size=4, test_size=4, path=str(tmp_path))
    with pytest.raises(InputError, match="the model has tokens 13 of them but the data set has 15 of them"):
        make_trainer().validate(module, other)
    with pytest.raises(InputError, match=r"model\.tokens is not known: give a data set of sequences"):
        make_trainer(fast_dev_run=1).fit(SequenceModeling(SMALL), Digits())
    with pytest.raises(InputError, match=r"model\.lr is -1"):
        SequenceModeling(SMALL, lr=-1)
