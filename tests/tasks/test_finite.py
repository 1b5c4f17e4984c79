"""A diverging run is stopped at the right step, and what was saved before stays."""

import pytest
import torch

from tests.spoilt import on_blobs
from vitlocal.cli import main
from vitlocal.errors import InputError
from vitlocal.tasks import Classification, FiniteLoss


class Diverging(Classification):
    """Its loss is NaN from a step on, counted from 1."""

    from_step = 5

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * float("nan") if self.trainer.global_step + 1 >= self.from_step else loss


@pytest.fixture
def model():
    return Diverging({"embed_dim": 16, "depth": 1, "num_heads": 2}, lr=0.01, warmup_epochs=0)


@pytest.mark.parametrize("every", [1, 2, 50])
def test_step_and_learning_rate_are_those_of_the_first_bad_loss(every, model, make_trainer, small_data):
    rates = {}

    class Rates(FiniteLoss):
        def on_train_batch_start(self, trainer, *args):
            super().on_train_batch_start(trainer, *args)
            rates[trainer.global_step + 1] = trainer.optimizers[0].param_groups[0]["lr"]

    with pytest.raises(InputError) as stopped:  # 3 batches an epoch
        make_trainer(max_epochs=4, callbacks=[Rates(every)]).fit(model, small_data)
    assert 0 < rates[5] < 0.01
    assert f"stopped at step 5 with learning rate {rates[5]:.3g}:" in str(stopped.value)
    # Noticed at the next look, at the epoch's end at the latest.
    assert max(rates) == (6 if every == 50 else 5)


def test_weights_that_are_not_finite_stop_it_too(model, make_trainer, small_data):
    model.from_step = 1000

    class Poison(FiniteLoss):
        def on_train_batch_end(self, trainer, pl_module, *args):
            super().on_train_batch_end(trainer, pl_module, *args)
            if trainer.global_step == 3:  # the last of the epoch: its loss was fine
                with torch.no_grad():
                    next(pl_module.parameters()).view(-1)[0] = float("inf")

    with pytest.raises(InputError, match="stopped at step 3"):
        make_trainer(max_epochs=2, callbacks=[Poison()]).fit(model, small_data)


def test_accumulated_batches_belong_to_one_step(model, make_trainer, small_data):
    model.from_step = 2
    trainer = make_trainer(max_epochs=2, callbacks=[FiniteLoss(1)], accumulate_grad_batches=2)
    with pytest.raises(InputError, match="stopped at step 2"):
        trainer.fit(model, small_data)


def test_the_last_good_checkpoints_stay(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    healthy = Classification.training_step

    def diverging(self, batch, batch_idx):  # 2 batches an epoch
        return healthy(self, batch, batch_idx) * (float("nan") if self.trainer.global_step >= 3 else 1)

    monkeypatch.setattr(Classification, "training_step", diverging)
    with pytest.raises(SystemExit):
        main(on_blobs(tmp_path, "--trainer.max_epochs=3"))
    assert "stopped at step 4" in capsys.readouterr().err
    (run,) = tmp_path.glob("lightning_logs/*/version_0")
    for name in ("best.ckpt", "last.ckpt"):
        saved = torch.load(run / "checkpoints" / name, weights_only=True)
        assert saved["global_step"] == 2
        assert all(weight.isfinite().all() for weight in saved["state_dict"].values())
    assert len((run / "metrics.csv").read_text().splitlines()) == 2


def test_a_run_that_is_well_is_left_alone(model, make_trainer, small_data):
    model.from_step = 1000
    weights = []
    for callbacks in ([], [FiniteLoss(1)]):
        torch.manual_seed(0)
        fresh = Classification({"embed_dim": 16, "depth": 1, "num_heads": 2}, warmup_epochs=0)
        make_trainer(max_epochs=2, callbacks=callbacks).fit(fresh, small_data)
        weights.append(torch.cat([weight.flatten() for weight in fresh.parameters()]))
    assert torch.equal(*weights)
