"""Loggers that say less of folders than TensorBoard's."""

from lightning.pytorch.loggers import Logger


class Remote(Logger):
    """As loggers of tracking servers: no version, and one folder, or none, for all runs.

    Args:
        save_dir: that folder.
    """

    def __init__(self, save_dir: str | None = None) -> None:
        super().__init__()
        self._save_dir = save_dir
        self.seen: dict[str, float] = {}

    @property
    def name(self) -> str:
        return "remote"

    @property
    def version(self) -> None:
        return None

    @property
    def save_dir(self) -> str | None:
        return self._save_dir

    def log_metrics(self, metrics, step=None):
        self.seen |= metrics

    def log_hyperparams(self, params, *args, **kwargs):
        pass
