"""A run that begins where another one ended, so that two protocols can part from one trained state."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from vitlocal.errors import InputError
from vitlocal.runs import checkpoints


class InitialWeights(Callback):
    """Begins training with the weights of a checkpoint; epochs, schedule and random numbers begin anew.

    A run that resumes has its own weights and is left alone.

    Args:
        path: a checkpoint, or a run's folder, of which the last is taken.
        optimizer: take over the optimiser's state too, AdamW's moments, but not its learning rates.

    Raises:
        InputError: there is no such checkpoint, or, when training starts, it is of another architecture.
    """

    def __init__(self, path: str | Path, optimizer: bool = False) -> None:
        path = Path(path)
        self.path = path / "checkpoints" / checkpoints.LAST if path.is_dir() else path
        self.optimizer = optimizer
        self._content = checkpoints.read(self.path)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the weights in, and the state of the optimiser."""
        content, self._content = self._content, {}
        if trainer.state.fn != TrainerFn.FITTING or trainer.ckpt_path is not None:
            return
        try:
            pl_module.load_state_dict(content["state_dict"])
        except RuntimeError as error:
            said = " ".join(str(error).partition(":")[2].split())
            raise InputError(
                f"init_from {self.path} doesn't fit the model ({said}): give the model settings of its run"
            ) from error
        if self.optimizer:
            for optimizer, state in zip(trainer.optimizers, content["optimizer_states"], strict=True):
                own = optimizer.state_dict()["param_groups"]
                optimizer.load_state_dict({"state": state["state"], "param_groups": own})
