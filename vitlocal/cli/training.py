"""fit, validate, test and predict: LightningCLI with a protocol, a monitor and the shipped configurations."""

import inspect
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only

from vitlocal import __version__, hardware
from vitlocal.activations import OutlierMonitor
from vitlocal.cli import callbacks
from vitlocal.cli.data_words import class_of, named_task, path_of, put_problems, refuse_mixed
from vitlocal.cli.model_words import todays, typed_of_model
from vitlocal.cli.parsing import ConfigFile, Sentences, files_first
from vitlocal.cli.save_config import SaveConfig, plain
from vitlocal.config_files import flat
from vitlocal.data import DataModule, Digits, UnlabelledImages
from vitlocal.errors import InputError
from vitlocal.files import remove_leftovers
from vitlocal.heads import LocalityMonitor
from vitlocal.protocol import Protocol
from vitlocal.runs import Distillation, InitialWeights, ProcessStates, ResumedSchedule, RunCheckpoint, folders
from vitlocal.runs.checkpoints import CheckpointFiles, newest, read
from vitlocal.runs.trainer import RunTrainer
from vitlocal.tasks import (
    AnswerWriter,
    Classification,
    EpochMetrics,
    FiniteLoss,
    PredictionWriter,
    SequenceModeling,
)

DIGITS_NOTE = "vitlocal: on the embedded digits; --config cifar100.yaml gives the paper's CIFAR-100"

# To show the loss, each redrawing of the progress bar has to wait for the device.
STEPS_BETWEEN_REDRAWINGS = 10

# What Lightning says of itself at each start: a call that PyTorch 2.14 deprecates, and another product.
warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
    lambda record: "litlogger" not in record.getMessage()
)


class Parser(Sentences, LightningArgumentParser):
    """LightningCLI's own, in sentences."""


def _refuse_null(key: str, given: Namespace) -> None:
    """Refuse null where the class has another default, in what a class path is given, and below."""
    defaults = inspect.signature(class_of(given)).parameters
    for argument, value in given.get("init_args", Namespace()).items(branches=True, nested=False):
        if value is None and argument in defaults and defaults[argument].default is not None:
            raise InputError(f"{key}.{argument} is null: give a value, or leave it out")
        if isinstance(value, Namespace) and "class_path" in value:
            _refuse_null(f"{key}.{argument}", value)


class TrainingCLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` of a ViT under a protocol.

    Args:
        words: the command line after the program's name.
    """

    trainer: RunTrainer
    run: Path | None = None
    """The run's folder, in the process of rank 0; None in a dry run."""
    resumed: Path | None = None
    """The folder of the run that resumes, in every process."""

    def __init__(self, words: list[str]) -> None:
        command = words[:1] if words and not words[0].startswith("-") else []
        self._words = command + (files_first(todays(words[1:])) if command else todays(words))
        try:
            super().__init__(
                save_config_callback=SaveConfig,
                save_config_kwargs={"overwrite": True},
                trainer_class=RunTrainer,
                trainer_defaults={"max_epochs": 100, "log_every_n_steps": 10},
                seed_everything_default=0,
                auto_configure_optimizers=False,
                args=self._words,
            )
        except BaseException:
            # config.yaml is written when all is ready: what was refused before leaves no folder.
            if self.run and not self.resumed and not (self.run / "config.yaml").exists():
                folders.discard(self.run)
            raise

    def _add_instantiators(self) -> None:
        """Leave a checkpoint the task's own arguments: Lightning would put the whole configuration there.

        By this method, since ``load_from_checkpoint_support`` is in newer releases only.
        """

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command that is given, whose parser is built; all of them where none is.

        Without ``weights_only``: it could only switch off what keeps a checkpoint from running code.
        """
        every = LightningCLI.subcommands()
        given = self._words[:1] if self._words[:1] and self._words[0] in every else every
        return {name: every[name] | {"weights_only"} for name in given}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser whose ``--config`` knows the shipped files, and that takes no key for a longer one."""
        parser = Parser(
            allow_abbrev=False, prog="vitlocal", dump_header=[f"vitlocal=={__version__}"], **kwargs
        )
        parser.add_argument("-c", "--config", action=ConfigFile, help="YAML file: path or shipped name")
        return parser

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Trainer, model and data; the data may be left out."""
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in self.trainer_defaults.items()})
        parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
        # Not always the same: what the default class is given would be given to another one, too.
        task = named_task(self._words) or Classification
        parser.set_defaults({"model": {"class_path": path_of(task)}})
        parser.add_lightning_class_args(DataModule, "data", subclass_mode=True, required=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The protocol, and the callbacks that can be set or switched off by name."""
        parser.add_class_arguments(Protocol, "protocol")
        self._add_optional_callback(parser, LocalityMonitor, "locality")
        parser.add_argument(
            "--outliers", type=OutlierMonitor | None, default=None, help="OutlierMonitor switches it on"
        )
        self._add_optional_callback(parser, ModelCheckpoint, "checkpoint", RunCheckpoint)
        if "predict" in self.subcommands():
            about = "Folder of images to predict, with the checkpoint alone; the training data are not read."
            parser.add_argument("--images", type=str | None, default=None, help=about)
            about = "Text file of problems to answer, one a line, with the checkpoint of a decoder."
            parser.add_argument("--problems", type=str | None, default=None, help=about)
        if "fit" in self.subcommands():
            about = "Begin with the weights of this checkpoint, or of the last one in this run's folder."
            parser.add_argument("--init_from", type=str | None, default=None, help=about)
            about = "With init_from: take over the state of its optimiser too."
            parser.add_argument("--init_optimizer", type=bool, default=False, help=about)
            about = "Distillation, with its teacher, has the run learn from another network too."
            parser.add_argument("--distillation", type=Distillation | None, default=None, help=about)

    @staticmethod
    def _add_optional_callback(
        parser: LightningArgumentParser, kind: type, key: str, default: type | None = None
    ) -> None:
        default = default or kind
        path = {"class_path": path_of(default)}
        parser.add_argument(f"--{key}", type=kind | None, default=path, help="null switches it off")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; then put in what depends on the data set and the hardware, as if it had been typed."""
        typed = list(self._words)
        # Printing the configuration has to wait for the last parse.
        silent = [arg for arg in typed if not arg.startswith("--print_config")]
        command = next((arg for arg in typed if arg in self.subcommands()), None)
        if command is None:  # asks for help, or is refused
            self.config = self._parse(typed)
            return
        place = typed.index(command) + 1
        no_images = named_task(self._words) is not None
        digits = ["--config", "digits.yaml"]
        parsed = [*silent[:place], *digits, *silent[place:]]
        given = self._parse(silent if no_images else parsed)
        if no_images:
            parsed = silent
        elif issubclass(class_of(given[command].data), Digits):
            if given[command].get("images") is None:
                rank_zero_info(DIGITS_NOTE)
            else:  # images of any size: the precision is the machine's, not that of the digits
                digits.append("--trainer.precision=null")
                given = self._parse([*silent[:place], *digits, *silent[place:]])
            typed[place:place] = digits
        else:
            parsed = silent
            given = self._parse(parsed)
        refuse_mixed(given[command])
        if given[command].protocol.photometric == "auto":
            photometric = class_of(given[command].data).photometric
            typed.append(f"--protocol.photometric={json.dumps(photometric)}")
        trainer = given[command].trainer
        if trainer.precision is None and trainer.plugins is None:  # a plugin may have a precision of its own
            trainer.precision = hardware.precision(str(trainer.accelerator))
            if typed != parsed:
                typed.append(f"--trainer.precision={trainer.precision}")
        self.config = given if typed == parsed else self._parse(typed)
        self._find_checkpoint(command)
        if self.config[command].get("images") is not None:
            self._predict_folder(self.config[command])
        if self.config[command].get("problems") is not None:
            put_problems(self.config[command])

    def _parse_ckpt_path(self) -> None:
        """Take the model's settings of a checkpoint, as Lightning does; those of earlier releases too."""
        command = self.config.get("subcommand")
        path = self.config[command].get("ckpt_path") if command else None
        if path and Path(path).is_file():
            settings = read(path)["hyper_parameters"]
            own = {name: value for name, value in settings.items() if not name.startswith("_")}
            model = {
                "class_path": settings.get("_class_path", self.config[command].model.class_path),
                "init_args": own,
            }
            self.config = self.parser.parse_object({command: {"model": model}}, self.config)

    def _predict_folder(self, config: Namespace) -> None:
        """Put the folder of images in the place of the data set, as the checkpoint's network takes them."""
        if not config.ckpt_path:
            raise InputError("images is given without ckpt_path: give a checkpoint, or best or last")
        facts = read(config.ckpt_path)["hyper_parameters"]
        if not facts.get("image_size") or not facts.get("in_channels"):
            raise InputError(f"{config.ckpt_path} doesn't say which images it takes: give one of vitlocal")
        config.data = Namespace(
            class_path=path_of(UnlabelledImages),
            init_args=Namespace(
                path=config.images,
                image_size=tuple(facts["image_size"]),
                resize=facts.get("resize") or "crop",
                in_channels=facts["in_channels"],
                batch_size=config.data.init_args.batch_size,
            ),
        )

    def _parse(self, args: list[str]) -> Any:
        """Parse, and refuse what jsonargparse takes and Lightning fails on."""
        parsed = self.parser.parse_args(args)
        given = parsed.get(parsed.get("subcommand") or "", {})
        for group in ("trainer", "model", "protocol"):
            if group in given and not isinstance(given[group], Namespace):
                shown = json.dumps(given[group], default=str)
                raise InputError(f"{group} is {shown}: it must be a mapping of keys to values")
        if given:
            _refuse_null("model", given.model)
        seed = given.get("seed_everything")
        if seed is not None and not 0 <= seed < 2**32:
            raise InputError(f"seed_everything is {seed}: it must be from 0 to {2**32 - 1}")
        return parsed

    def _find_checkpoint(self, command: str) -> None:
        """``--ckpt_path best`` or ``last``: that of this data set's and protocol's newest run."""
        config = self.config[command]
        if config.ckpt_path in (None, "hpc"):  # hpc: SLURM's own, found by Lightning
            return
        if config.ckpt_path in ("best", "last"):
            built = self.parser.instantiate(self.config)[command]
            checkpoint, self._step = newest(self._root(built), config.ckpt_path, resuming=command == "fit")
            config.ckpt_path = str(checkpoint)
            if command == "fit":
                self.resumed = checkpoint.parent.parent
                rank_zero_only(remove_leftovers)(self.resumed)
        self._refuse_overridden(config)

    def _root(self, config: Namespace) -> Path:
        """The folder of the runs that this is one of."""
        model = self.config[self.config.subcommand].model.as_dict()
        name = folders.run_name(config.data.name, config.protocol.name, model)
        return folders.folder(config.trainer.default_root_dir, name)

    def _refuse_overridden(self, config: Namespace) -> None:
        """A checkpoint has the model's settings: refuse others that are typed."""
        facts = dict(flat(read(config.ckpt_path)["hyper_parameters"]))
        model = dict(flat(config.model.as_dict()))
        for name in sorted(facts.keys() & model.keys() & typed_of_model(self._words)):
            given, own = plain(model[name]), plain(facts[name])
            if given != own:
                raise InputError(
                    f"model.{name} is {given} but the checkpoint {config.ckpt_path} has {own}: "
                    "leave it out, or give another checkpoint"
                )

    def before_instantiate_classes(self) -> None:
        """Leave the checkpoint that a run resumes from out of the run's configuration."""
        config = self.config[self.subcommand]
        self._checkpoint = config.ckpt_path
        if self.resumed:
            config.ckpt_path = None

    def after_instantiate_classes(self) -> None:
        """Hand that checkpoint to the trainer, and begin the run in a folder of its own."""
        config = self.config_init[self.subcommand]
        config.ckpt_path = self._checkpoint
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        devices = self.trainer.world_size
        if self.subcommand == "fit" and devices > 1 and config.data is not None:
            size = config.data.batch_size
            rank_zero_info(
                f"vitlocal: batches of {size} on each of {devices} devices: {size * devices} together"
            )
        root = self._root(config)
        root = root if self.subcommand == "fit" else root.with_name(f"{root.name}-{self.subcommand}")
        if self.trainer.is_global_zero:
            self.run = self.resumed or folders.reserve(root)
        self.trainer.begin(self.run)
        if config.trainer.logger in (None, True):
            # What a run that resumes showed after its checkpoint is hidden.
            purge_step = self._step if self.resumed else None
            version = folders.number(self.run) if self.run else None
            self.trainer.loggers = [
                TensorBoardLogger(
                    root.parent, root.name, version, default_hp_metric=False, purge_step=purge_step
                )
            ]

    def after_fit(self) -> None:
        """Say where the run is, and how to look at it."""
        if self.run:
            logs = self.run.parent.parent
            ours = self.config_init[self.subcommand].trainer.logger in (None, True)
            how = f"; tensorboard --logdir {logs} shows it" if ours else ""
            rank_zero_info(f"vitlocal: the run is in {self.run}{how}")

    @staticmethod
    def _check_processes(trainer: Namespace) -> None:
        """A CPU takes any number of processes, and far more than it has cores bring the machine down."""
        most = max(2, os.cpu_count() or 1)
        devices = str(trainer.devices)
        if trainer.accelerator == "cpu" and devices.isdecimal() and int(devices) > most:
            raise InputError(f"trainer.devices is {devices} on a CPU: give at most {most} processes")

    @staticmethod
    def _progress_bar(trainer: Namespace) -> list[Callback]:
        """Ours, unless there is to be none or another is given."""
        given = trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks]
        if trainer.enable_progress_bar is False or any(isinstance(one, ProgressBar) for one in given):
            return []
        return [TQDMProgressBar(refresh_rate=STEPS_BETWEEN_REDRAWINGS)]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer with the protocol's callbacks, writing into the run's own folder."""
        assert self.subcommand is not None
        config = self.config_init[self.subcommand]
        init_from = config.get("init_from")
        checkpoint = None if config.trainer.enable_checkpointing is False else config.checkpoint
        self.trainer_defaults["callbacks"] = [
            # Before what observes the untrained network.
            *([InitialWeights(init_from, config.init_optimizer)] if init_from else []),
            *([config.distillation] if config.get("distillation") is not None else []),
            *config.protocol.callbacks(),
            *(one for one in (config.locality, config.outliers, checkpoint) if one is not None),
            FiniteLoss(),
            EpochMetrics(),
            AnswerWriter() if isinstance(config.model, SequenceModeling) else PredictionWriter(),
            ProcessStates(),
            ResumedSchedule(),
            *self._progress_bar(config.trainer),
        ]
        given = config.trainer.plugins
        plugins = given if isinstance(given, list) else [] if given is None else [given]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, CheckpointFiles()]
        self._check_processes(config.trainer)
        if self.subcommand == "fit" and config.trainer.limit_train_batches == 0:
            raise InputError(
                "trainer.limit_train_batches is 0, so nothing would be trained: give more, or use validate "
                "in the place of fit"
            )
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ImportError, MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
            said = " ".join(str(error).split())
            named = [name for name in vars(config.trainer) if name in said]
            given = [f"{name}={config.trainer[name]}" for name in named or ("accelerator", "devices")]
            raise InputError(f"trainer ({', '.join(given)}): {said}") from error
        callbacks.check(trainer)
        # A bar is in one process only: it must come after what all of them compute together, or they
        # would wait for each other.
        trainer.callbacks.sort(key=lambda callback: isinstance(callback, ProgressBar))  # type: ignore[attr-defined]
        return trainer
