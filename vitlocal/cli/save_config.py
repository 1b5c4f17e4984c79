"""A run's configuration, as it is written beside its tables."""

from enum import Enum
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from vitlocal.tasks.classification import DATA_FACTS
from vitlocal.tasks.nodes import NODE_FACTS
from vitlocal.tasks.sequences import SEQUENCE_FACTS

# Lightning's Timer has one among its defaults, and config.yaml has to hold it.
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, value: dumper.represent_str(value.value))


def plain(value: Any) -> Any:
    """YAML and checkpoints give lists where the data module has tuples."""
    return tuple(value) if isinstance(value, list) else value


class SaveConfig(SaveConfigCallback):
    """Writes ``config.yaml`` once all is ready to run, so that what is refused before leaves no folder."""

    _saved = False  # in every process, unlike Lightning's own: saving is collective

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Not yet: the network is built, and a checkpoint put back, after this."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it."""
        self._save(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it, before the sanity check of ``fit`` too."""
        self._save(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it."""
        self._save(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it."""
        self._save(trainer, pl_module)

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._saved:
            self._saved = True
            # A checkpoint brings its data set's facts: a resumed run keeps the settings it began with.
            model, datamodule = self.config["model"].init_args, getattr(trainer, "datamodule", None)
            for fact in {*DATA_FACTS, *NODE_FACTS, *SEQUENCE_FACTS}:
                if fact in model and plain(model[fact]) == getattr(datamodule, fact, None):
                    model[fact] = None
            if trainer.num_devices > 1:  # also where that many were found
                self.config["trainer"]["devices"] = trainer.num_devices
            super().setup(trainer, pl_module, str(trainer.state.fn))
