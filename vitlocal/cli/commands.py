"""The commands: from this dict come the help and every parser. Nothing here waits for PyTorch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        about: what it does, in a few words.
        function: what it calls, as ``module:name``, with keys for arguments; empty: a trainer's method.
        positional: arguments that are given without their names.
        numbers: arguments that are several whole numbers, beside each other or in one word.
        config: whether it takes ``--config``.
    """

    about: str
    function: str = ""
    positional: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    config: bool = False


COMMANDS = {
    "fit": Command("train"),
    "validate": Command("measure a checkpoint on the validation images"),
    "test": Command("measure a checkpoint on the test images"),
    "predict": Command("write the class of every image"),
    "study": Command(
        "run conditions x seeds x data sets, and compare them", "vitlocal.study.command:study", config=True
    ),
    "compare": Command(
        "put runs side by side: statistics, tables, figures and one HTML page",
        "vitlocal.study.compare:compare",
        positional=("runs",),
    ),
    "quantize": Command(
        "measure what int8 costs a trained network, and make it int8", "vitlocal.compress.quantize:quantize"
    ),
    "prune": Command(
        "take out heads and MLP features until a network is as fast as is wanted",
        "vitlocal.compress.prune.command:prune",
        positional=("run",),
    ),
    "export": Command("write a trained network as ONNX or safetensors", "vitlocal.compress.export:export"),
    "inspect": Command(
        "measure and draw what the heads of any trained Vision Transformer do",
        "vitlocal.inspection.command:inspect",
        positional=("model",),
        numbers=("layers", "heads", "nodes"),
    ),
}

HELP = f"""usage: vitlocal COMMAND [--config FILE]... [--KEY=VALUE]...

Vision Transformers trained from scratch under named protocols, head by head.

commands:
{"".join(f"  {name:<10}  {command.about}{chr(10)}" for name, command in COMMANDS.items())}
  vitlocal COMMAND --help           all keys of a command
  vitlocal COMMAND --print_config   the values that they have
  vitlocal --version

for example:
  vitlocal fit --config modern.yaml
  vitlocal fit --config cifar100.yaml --config modern.yaml --protocol.mixing=null
  vitlocal test --config cifar100.yaml --config modern.yaml --ckpt_path=best
  vitlocal study --config ablation.yaml --small
  vitlocal compare lightning_logs/digits-baseline/version_0 lightning_logs/digits-modern/version_0
  vitlocal inspect lightning_logs/digits-modern/version_0
"""
