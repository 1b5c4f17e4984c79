"""The callback that follows, epoch by epoch, what every head looks at."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from vitlocal.errors import InputError
from vitlocal.files import EpochTable
from vitlocal.heads import summary, tensorboard
from vitlocal.heads.functional import ClassToken, Unit
from vitlocal.heads.observation import Observation
from vitlocal.heads.observe import find_attention, find_network
from vitlocal.runs import writable_folder

Batch = dict[str, Tensor]


class LocalityMonitor(Callback):
    """Measures and logs the locality of every attention head during validation and testing.

    Works in ``fit``, ``validate`` and ``test``, with any logger or none. The mean attention distance
    (MAD), the normalised entropy and the rest (see :mod:`vitlocal.heads.functional`) are logged, can
    be monitored by other callbacks as ``locality/...``, and go to ``heads.csv`` in the run's folder.
    TensorBoard also gets figures. Epochs are counted as training epochs done: 0 is the untrained
    network.

    Args:
        every_n_epochs: Observe after every n-th epoch of training.
        max_images: Number of images to observe, the same ones every time; null for all.
        unit: Of distances: share of the ``grid``'s largest distance, ``patches`` or ``pixels``.
        class_token: ``drop`` leaves the class token out and renormalises over patches; ``keep`` counts it
            as a key at distance 0.
        before_training: Observe the untrained network too.
        maps: Number of images whose attention maps are drawn, in TensorBoard only; 0 for none.
        seed: Which images ``max_images`` chooses.

    Raises:
        InputError: A value is out of its range, or there are no attention modules to observe.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        max_images: int | None = None,
        unit: Unit = "grid",
        class_token: ClassToken = "drop",
        before_training: bool = True,
        maps: int = 2,
        seed: int = 0,
    ) -> None:
        if every_n_epochs < 1:
            raise InputError(f"locality.every_n_epochs is {every_n_epochs}: it must be at least 1")
        if max_images is not None and max_images < 1:
            raise InputError(f"locality.max_images is {max_images}: it must be at least 1, or null for all")
        if unit not in get_args(Unit):
            raise InputError(f"locality.unit is {unit!r}: it must be one of {', '.join(get_args(Unit))}")
        if class_token not in get_args(ClassToken):
            raise InputError(f"locality.class_token is {class_token!r}: it must be drop or keep")
        if maps < 0:
            raise InputError(f"locality.maps is {maps}: it must not be negative")
        self.every_n_epochs = every_n_epochs
        self.max_images = max_images
        self.unit: Unit = unit
        self.class_token: ClassToken = class_token
        self.before_training = before_training
        self.maps = maps
        self.seed = seed
        self._observation: Observation | None = None
        self._hooks = ExitStack()
        self._layout_written = False
        self._fitted = False
        self._evaluated: tuple[int, int] | None = None

    # When to observe

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember how long a checkpoint that is evaluated was trained: the trainer does not."""
        if trainer.state.fn != TrainerFn.FITTING:
            progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
            # int: a damaged file may hold anything, and here that is noticed as its fault.
            self._evaluated = (int(progress["ready"]), int(checkpoint["global_step"]))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fail before the first step if there is nothing to observe."""
        # Not in setup: the module may build its network only after that, in configure_model.
        find_attention(find_network(pl_module))
        self._fitted, self._evaluated = True, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Observe the untrained network over the validation images."""
        if not self.before_training or trainer.global_step > 0:
            return
        with _undisturbed(trainer, pl_module):
            if trainer.val_dataloaders is None:  # where the first epoch has no validation
                trainer.fit_loop.epoch_loop.val_loop.setup_data()
            if not any(trainer.num_val_batches):
                return
            loaders = CombinedLoader(trainer.val_dataloaders, "sequential")
            loaders.limits = trainer.num_val_batches
            observation = self._observe(trainer, pl_module)
            for batch, _, loader in iter(loaders):
                batch = trainer.strategy.batch_to_device(batch, dataloader_idx=loader)
                with observation.batch(batch, loader):
                    pl_module(batch["image"])
        values = self._write(trainer, observation, epoch=0, step=0)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=0)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an observation, if one is due."""
        fitting = trainer.state.fn == TrainerFn.FITTING
        due = not fitting or self._progress(trainer)[0] % self.every_n_epochs == 0
        if due and not trainer.sanity_checking:
            self._observation = self._observe(trainer, pl_module)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Put hooks on the attention modules."""
        if self._observation is not None:
            self._hooks.enter_context(self._observation.batch(batch, dataloader_idx))

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Take the hooks off."""
        self._hooks.close()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log and write what was observed."""
        if self._observation is None:
            return
        epoch, step = self._progress(trainer)
        values = self._write(trainer, self._observation, epoch, step)
        self._observation = None
        logged = values
        if trainer.state.fn != TrainerFn.FITTING:
            # The table that validate and test print gets the headlines, not hundreds of rows.
            logged = {name: values.pop(name) for name in summary.HEADLINES}
            for logger in trainer.loggers:
                logger.log_metrics(values, step=step)
        for name, value in logged.items():
            # Equal on all ranks already; the maximum keeps them exactly so.
            pl_module.log(
                name,
                value,
                prog_bar=name == "locality/mad_min",
                sync_dist=True,
                reduce_fx="max",
                batch_size=1,
            )

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As in validation."""
        self.on_validation_epoch_start(trainer, pl_module)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """As in validation."""
        self.on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """As in validation."""
        self.on_validation_batch_end()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As in validation."""
        self.on_validation_epoch_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no hooks behind."""
        self._hooks.pop_all().__exit__(type(exception), exception, exception.__traceback__)
        self._observation = None

    # What to observe, and where it goes

    def _observe(self, trainer: Trainer, pl_module: LightningModule) -> Observation:
        drawing = trainer.is_global_zero and any(isinstance(x, TensorBoardLogger) for x in trainer.loggers)
        return Observation(
            pl_module,
            pl_module.device,
            self.unit,
            self.class_token,
            chosen=None if self.max_images is None else self._choose(trainer, self.max_images),
            maps=self.maps if drawing else 0,
        )

    def _choose(self, trainer: Trainer, count: int) -> list[Tensor]:
        """For each loader, ``batch["index"]`` of the images to observe, at random among those it serves."""
        testing = trainer.state.fn == TrainerFn.TESTING
        loaders = CombinedLoader(
            trainer.test_dataloaders if testing else trainer.val_dataloaders, "sequential"
        )
        batches = trainer.num_test_batches if testing else trainer.num_val_batches
        chosen = []
        for loader, limit in zip(loaders.flattened, batches, strict=True):
            # A data set that serves a part of its images names their indices.
            indices = torch.as_tensor(getattr(loader.dataset, "positions", range(len(loader.dataset))))
            if loader.batch_size is not None:
                indices = indices[: int(limit) * loader.batch_size * trainer.world_size]
            order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(self.seed))
            chosen.append(indices[order[:count]])
        return chosen

    def _progress(self, trainer: Trainer) -> tuple[int, int]:
        """Epochs of training begun, and steps: during validation, the epoch that it ends counts as done."""
        if self._evaluated is not None:
            return self._evaluated
        return trainer.fit_loop.epoch_progress.current.ready, trainer.global_step

    def _write(self, trainer: Trainer, observation: Observation, epoch: int, step: int) -> dict[str, float]:
        """Put an observation into ``heads.csv`` and TensorBoard's figures; give the values to log."""
        # Collective under DDP: in all processes.
        layers, folder = observation.compute(), writable_folder(trainer)
        if not trainer.strategy.reduce(observation.images.clone(), reduce_op="sum"):
            raise InputError(
                "locality.max_images chose images that no batch held: "
                "batch['index'] must be the image's position in its data set, or one of data set's positions"
            )
        if trainer.is_global_zero:
            if folder is not None:
                table = EpochTable(folder / self._file_name(trainer), summary.COLUMNS)
                table.write(epoch, summary.rows(layers, step))
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    if not self._layout_written:
                        tensorboard.write_layout(logger, len(layers))
                    # Beside the scalars: loggers count steps from 0, so the last one is a step back.
                    shown = step if self._evaluated is not None else max(step - 1, 0)
                    tensorboard.write_figures(
                        logger, layers, observation.uniform, self.unit, observation.maps, shown
                    )
            self._layout_written = True
        return summary.scalars(layers, observation.uniform)

    def _file_name(self, trainer: Trainer) -> str:
        """``heads.csv``, but an evaluation after ``fit`` leaves the table of the training alone."""
        function = trainer.state.fn
        if function is None or function == TrainerFn.FITTING or not self._fitted:
            return "heads.csv"
        return f"heads_{function.value}.csv"


@contextmanager
def _undisturbed(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """Evaluation within the trainer's precision, after which training goes on as if nothing had been."""
    modes = {module: module.training for module in pl_module.modules()}
    pl_module.eval()
    trainer.validating = True  # else the data module takes the batches for training's
    try:
        with isolate_rng(), torch.no_grad(), trainer.precision_plugin.forward_context():
            yield
    finally:
        trainer.training = True
        for module, training in modes.items():
            module.training = training
