"""What the callbacks that observe a network in training have in common: when they do, and where it goes."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from vitlocal import internals
from vitlocal.errors import InputError
from vitlocal.files import EpochTable, atomic_path
from vitlocal.observing.batches import Numbering, Where, choose, images_of
from vitlocal.observing.eager import running_eager
from vitlocal.observing.hooks import find_attention, find_network
from vitlocal.observing.pictures import show, takes_pictures
from vitlocal.processes import writable_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, object]]


class NetworkMonitor(Callback):
    """Observes the network in validation, in testing and before training, and leaves training as it is.

    Epochs are counted as training epochs done: 0 is the untrained network. A subclass says what is
    observed, by the methods at the end.

    Args:
        every_n_epochs: Observe after every n-th epoch of training.
        max_images: Number of images to observe, the same ones every time; None for all.
        before_training: Observe the untrained network too.
        seed: Which images ``max_images`` chooses.
        images: Where a batch has its images: a key, a position or a function of the batch. None for the
            batch itself, its keys ``image``, ``pixel_values`` or ``images``, or its first part.

    Attributes:
        key: the keyed group that sets it, which mistakes are named by.
        headlines: of the values, those that ``validate`` and ``test`` print.
        in_progress_bar: one of them, shown while training.

    Raises:
        InputError: A value is out of its range.
    """

    key: ClassVar[str]
    headlines: ClassVar[Sequence[str]]
    in_progress_bar: ClassVar[str | None] = None

    def __init__(
        self, every_n_epochs: int, max_images: int | None, before_training: bool, seed: int, images: Where
    ) -> None:
        if every_n_epochs < 1:
            raise InputError(f"{self.key}.every_n_epochs is {every_n_epochs}: it must be at least 1")
        if max_images is not None and max_images < 1:
            raise InputError(f"{self.key}.max_images is {max_images}: it must be at least 1, or null for all")
        self.every_n_epochs = every_n_epochs
        self.max_images = max_images
        self.before_training = before_training
        self.seed = seed
        self.images = images
        self._collector: Any = None
        self._numberings: list[Numbering] = []
        self._hooks = ExitStack()
        self._fitted = False
        self._evaluated: tuple[int, int] | None = None

    # When to observe

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember how long a checkpoint that is evaluated was trained: the trainer does not."""
        if trainer.state.fn != TrainerFn.FITTING:
            # int: a damaged file may hold anything, and here that is noticed as its fault.
            epochs = internals.epochs_of_checkpoint(checkpoint)
            self._evaluated = (epochs, int(checkpoint["global_step"]))

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
            internals.set_up_validation(trainer)  # where the first epoch has none
            if not any(trainer.num_val_batches):
                return
            loaders = CombinedLoader(trainer.val_dataloaders, "sequential")
            loaders.limits = trainer.num_val_batches
            collector = self._collector_for(trainer, pl_module)
            for batch, number, loader in iter(loaders):
                batch = trainer.strategy.batch_to_device(batch, dataloader_idx=loader)
                images = images_of(batch, self.images)
                with self._watching(collector, batch, images, loader):
                    _run(pl_module, images)
                self._beside(collector, pl_module, images, (loader, number))
        values = self._write(trainer, collector, epoch=0, step=0)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=0)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to observe, if that is due."""
        fitting = trainer.state.fn == TrainerFn.FITTING
        due = not fitting or self._progress(trainer)[0] % self.every_n_epochs == 0
        if due and not trainer.sanity_checking:
            self._collector = self._collector_for(trainer, pl_module)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Put hooks on the attention modules."""
        if self._collector is not None:
            images = images_of(batch, self.images)
            self._hooks.enter_context(self._watching(self._collector, batch, images, dataloader_idx))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take the hooks off."""
        self._hooks.close()
        if self._collector is not None:
            with trainer.precision_plugin.forward_context():
                images = images_of(batch, self.images)
                self._beside(self._collector, pl_module, images, (dataloader_idx, batch_idx))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log and write what was observed."""
        if self._collector is None:
            return
        epoch, step = self._progress(trainer)
        values = self._write(trainer, self._collector, epoch, step)
        self._collector = None
        logged = values
        if trainer.state.fn != TrainerFn.FITTING:
            # The table that validate and test print gets the headlines, not hundreds of rows.
            logged = {name: values.pop(name) for name in self.headlines if name in values}
            for logger in trainer.loggers:
                logger.log_metrics(values, step=step)
        for name, value in logged.items():
            # Equal on all ranks already; the maximum keeps them exactly so.
            pl_module.log(
                name,
                value,
                prog_bar=name == self.in_progress_bar,
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
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """As in validation."""
        self.on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """As in validation."""
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As in validation."""
        self.on_validation_epoch_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no hooks behind."""
        self._hooks.pop_all().__exit__(type(exception), exception, exception.__traceback__)
        self._collector = None

    # Which images, and where it goes

    def _collector_for(self, trainer: Trainer, pl_module: LightningModule) -> Any:
        drawing = trainer.is_global_zero and any(map(takes_pictures, trainer.loggers))
        testing = trainer.state.fn == TrainerFn.TESTING
        loaders = CombinedLoader(
            trainer.test_dataloaders if testing else trainer.val_dataloaders, "sequential"
        ).flattened
        self._numberings = [Numbering(loader) for loader in loaders]
        chosen = None
        if self.max_images is not None:
            batches = trainer.num_test_batches if testing else trainer.num_val_batches
            chosen = [
                choose(loader, limit, trainer.world_size, self.max_images, self.seed)
                for loader, limit in zip(loaders, batches, strict=True)
            ]
        return self._new_collector(pl_module, chosen, drawing)

    @contextmanager
    def _watching(self, collector: Any, batch: Any, images: Tensor, loader: int) -> Iterator[None]:
        """Observe a batch; compiled networks run eager, since their hooks would not be seen."""
        index = self._numberings[loader].of(batch, len(images))
        with running_eager(), collector.batch(images, index, loader):
            yield

    def _progress(self, trainer: Trainer) -> tuple[int, int]:
        """Epochs of training begun, and steps: during validation, the epoch that it ends counts as done."""
        if self._evaluated is not None:
            return self._evaluated
        return internals.epochs_begun(trainer), trainer.global_step

    def _write(self, trainer: Trainer, collector: Any, epoch: int, step: int) -> dict[str, float]:
        """Put what was collected into tables and the loggers' figures; give the values to log."""
        # Collective under DDP: in all processes.
        layers, folder = collector.compute(), writable_folder(trainer)
        if not trainer.strategy.reduce(collector.images.clone(), reduce_op="sum"):
            raise InputError(
                f"{self.key}.max_images chose images that no batch held: a batch's index must be each "
                "image's position in its data set, or one of the data set's positions"
            )
        if trainer.is_global_zero:
            if folder is not None:
                for name, (columns, rows) in self._tables(layers, collector, step).items():
                    EpochTable(folder / self._file_name(trainer, name), columns).write(epoch, rows)
                for name, facts in self._facts(collector).items():
                    with atomic_path(folder / f"{name}.json") as temporary:
                        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            if loggers := [logger for logger in trainer.loggers if takes_pictures(logger)]:
                self._lay_out(loggers, collector)
                # Beside the scalars: loggers count steps from 0, so the last one is a step back.
                shown = step if self._evaluated is not None else max(step - 1, 0)
                training = epoch if trainer.state.fn == TrainerFn.FITTING else None
                for name, figure in self._figures(layers, collector, training):
                    for logger in loggers:
                        show(logger, name, figure, shown)
        return self._scalars(layers, collector)

    def _file_name(self, trainer: Trainer, name: str) -> str:
        """``name.csv``, but an evaluation after ``fit`` leaves the table of the training alone."""
        function = trainer.state.fn
        if function is None or function == TrainerFn.FITTING or not self._fitted:
            return f"{name}.csv"
        return f"{name}_{function.value}.csv"

    # What is observed

    @abstractmethod
    def _new_collector(
        self, pl_module: LightningModule, chosen: Sequence[Tensor] | None, drawing: bool
    ) -> Any:
        """A new collector.

        It has a context manager ``batch(images, index, loader)`` around the forward pass of a batch, the
        number of ``images`` observed in this process, and ``compute()``, which is called in all processes.

        Args:
            pl_module: holds the network.
            chosen: for each loader, the numbers of the images to observe; None for all.
            drawing: whether figures will be drawn.
        """

    def _beside(
        self, collector: Any, pl_module: LightningModule, images: Tensor, place: tuple[int, int]
    ) -> None:
        """Observe what the batch's own pass does not show; the place is its loader and number."""

    @abstractmethod
    def _tables(self, layers: Any, collector: Any, step: int) -> dict[str, tuple[Sequence[str], Rows]]:
        """Of what ``compute`` gave, the columns and this epoch's rows of each table, by its name."""

    def _facts(self, collector: Any) -> dict[str, Mapping[str, object]]:
        """What is the same in every epoch, for JSON files beside the tables, by their names."""
        return {}

    @abstractmethod
    def _scalars(self, layers: Any, collector: Any) -> dict[str, float]:
        """The values to log, equal in all processes."""

    def _lay_out(self, loggers: Sequence[Logger], collector: Any) -> None:
        """Prepare the loggers that take pictures, on rank 0, before each time that some are drawn."""

    @abstractmethod
    def _figures(self, layers: Any, collector: Any, epoch: int | None) -> Iterator[tuple[str, Figure]]:
        """Names and figures, drawn on rank 0; the epoch is that of training, None in an evaluation."""


def _run(pl_module: LightningModule, images: Tensor) -> object:
    """Run a module on images, or its network alone where the module has no ``forward``.

    Raises:
        InputError: it does not take them.
    """
    own = type(pl_module).forward is not LightningModule.forward
    run = pl_module if own else find_network(pl_module)
    try:
        return run(images)
    except InputError:
        raise
    except Exception as error:  # of a stranger's code
        raise InputError(
            f"{type(run).__name__} can't be run on the images of a validation batch "
            f"({type(error).__name__}: {error}): say by images= where they are, or give before_training=False"
        ) from error


@contextmanager
def _undisturbed(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """Evaluation within the trainer's precision, after which training continues as if nothing had been."""
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
