"""The command line: LightningCLI with a protocol, a monitor and the shipped configurations."""

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from vitlocal import __version__, config_files, runs
from vitlocal.data import Digits, ImageDataModule
from vitlocal.errors import InputError
from vitlocal.heads import LocalityMonitor
from vitlocal.protocol import Protocol
from vitlocal.tasks import Classification, EpochMetrics, PredictionWriter

DIGITS_NOTE = "vitlocal: on the embedded digits; --config cifar100.yaml gives the paper's CIFAR-100"


class ConfigFile(ActionConfigFile):
    """``--config``: a path, or the name of a shipped configuration."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Find the file and merge it into what was given before."""
        super().__call__(parser, cfg, str(config_files.find(values)), option_string)


class Parser(LightningArgumentParser):
    """Says what is wrong without the pages of usage before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say it and leave with exit code 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        sys.stderr.write(
            f"vitlocal: error: {message}\nvitlocal: --help after the command lists what it takes\n"
        )
        sys.exit(2)


class VitlocalCLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` of a ViT under a protocol."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser whose ``--config`` knows the shipped files."""
        parser = Parser(prog="vitlocal", dump_header=[f"vitlocal=={__version__}"], **kwargs)
        parser.add_argument("-c", "--config", action=ConfigFile, help="YAML file: path or shipped name")
        return parser

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Trainer, model and data; the data may be left out."""
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in self.trainer_defaults.items()})
        parser.add_lightning_class_args(Classification, "model")
        parser.add_lightning_class_args(ImageDataModule, "data", subclass_mode=True, required=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The protocol, and the callbacks that can be set or switched off by name."""
        parser.add_class_arguments(Protocol, "protocol")
        self._add_optional_callback(parser, LocalityMonitor, "locality", {})
        best = {"filename": "best", "monitor": "val/acc1", "mode": "max", "save_last": True}
        # Without the counter the best checkpoint keeps its name.
        best |= {"enable_version_counter": False}
        self._add_optional_callback(parser, ModelCheckpoint, "checkpoint", best)

    @staticmethod
    def _add_optional_callback(
        parser: LightningArgumentParser, kind: type, key: str, init_args: dict[str, Any]
    ) -> None:
        default = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": init_args}
        parser.add_argument(f"--{key}", type=kind | None, default=default, help="null switches it off")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; then put in what depends on the data set, as if it had been typed."""
        typed = list(sys.argv[1:] if args is None else args)
        # Printing the configuration has to wait for the last parse.
        silent = [arg for arg in typed if not arg.startswith("--print_config")]
        command = next((arg for arg in typed if arg in self.subcommands()), None)
        if command is None:  # asks for help, or is refused
            self.config = parser.parse_args(typed)
            return
        place = typed.index(command) + 1
        digits = ["--config", "digits.yaml"]
        given = parser.parse_args([*silent[:place], *digits, *silent[place:]])
        if isinstance(parser.instantiate(given)[command].data, Digits):
            rank_zero_info(DIGITS_NOTE)
            typed[place:place] = digits
        else:
            given = parser.parse_args(silent)
        if given[command].protocol.photometric == "auto":
            photometric = parser.instantiate(given)[command].data.photometric
            typed.append(f"--protocol.photometric={json.dumps(photometric)}")
        self.config = parser.parse_args(typed)
        self._find_checkpoint(command)

    def _find_checkpoint(self, command: str) -> None:
        """``--ckpt_path best`` or ``last``: that of this data set's and protocol's newest run."""
        config = self.config[command]
        self.resumed: Path | None = None
        if config.ckpt_path not in ("best", "last"):
            return
        built = self.parser.instantiate(self.config)[command]
        root = runs.folder(config.trainer.default_root_dir, built.data.name, built.protocol.name)
        checkpoint = runs.newest_checkpoint(root, config.ckpt_path)
        config.ckpt_path = str(checkpoint)
        if command == "fit":
            self.resumed = checkpoint.parent.parent

    def before_instantiate_classes(self) -> None:
        """Leave the checkpoint that a run goes on from out of the run's configuration."""
        config = self.config[self.subcommand]
        self._checkpoint = config.ckpt_path
        if self.resumed:
            config.ckpt_path = None

    def after_instantiate_classes(self) -> None:
        """Hand that checkpoint to the trainer."""
        self.config_init[self.subcommand].ckpt_path = self._checkpoint

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer with the protocol's callbacks, writing into the run's own folder."""
        assert self.subcommand is not None
        config = self.config_init[self.subcommand]
        self.trainer_defaults["callbacks"] = [
            *config.protocol.callbacks(),
            *(callback for callback in (config.locality, config.checkpoint) if callback is not None),
            EpochMetrics(),
            PredictionWriter(),
        ]
        suffix = "" if self.subcommand == "fit" else f"-{self.subcommand}"
        root = runs.folder(config.trainer.default_root_dir, config.data.name, config.protocol.name + suffix)
        version = runs.number(self.resumed) if self.resumed else runs.next_version(root)
        if config.trainer.logger in (None, True):
            kwargs["logger"] = TensorBoardLogger(root.parent, root.name, version, default_hp_metric=False)
        elif config.trainer.logger is False:
            kwargs["default_root_dir"] = str(root / f"version_{version}")
        return super().instantiate_trainer(**kwargs)


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: the words after the program's name; those of the process if left out.
    """
    try:
        VitlocalCLI(
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"max_epochs": 100, "log_every_n_steps": 10},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )
    except ValueError as error:
        cause: BaseException | None = error
        # jsonargparse wraps what a constructor raises.
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        if cause is None:
            raise
        sys.exit(f"vitlocal: error: {cause}")
