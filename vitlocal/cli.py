"""The command line. What a command needs is imported when it is given: PyTorch and Lightning take seconds."""

import os
import signal
import sys
from importlib import import_module

from vitlocal import __version__

HELP = """usage: vitlocal COMMAND [--config FILE]... [--KEY=VALUE]...

Vision Transformers trained from scratch under named protocols, head by head.

commands:
  fit         train
  validate    measure a checkpoint on the validation images
  test        measure a checkpoint on the test images
  predict     write the class of every image
  study       run conditions x seeds x data sets, and compare them
  compare     put runs side by side: statistics, tables, figures and one HTML page
  quantize    measure what int8 costs a trained network, and make it int8
  export      write a trained network as ONNX or safetensors
  inspect     measure and draw what the heads of any trained Vision Transformer do

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

TOOLS = {
    "study": "vitlocal.study.command",
    "compare": "vitlocal.study.compare",
    "inspect": "vitlocal.inspection.command",
    "quantize": "vitlocal.compress.quantize",
    "export": "vitlocal.compress.export",
}
"""Commands besides those that train and measure one run: the module whose ``main`` takes their words."""


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: the words after the program's name; those of the process if left out.
    """
    words = list(sys.argv[1:] if args is None else args)
    if words in (["--help"], ["-h"]):
        print(HELP, end="")
        return
    if words == ["--version"]:
        print(f"vitlocal {__version__}")
        return

    from lightning.pytorch.utilities.exceptions import SIGTERMException
    from lightning.pytorch.utilities.rank_zero import rank_zero_info

    from vitlocal import messages

    try:
        if words and words[0] in TOOLS:
            import_module(TOOLS[words[0]]).main(words[1:])
        else:
            from vitlocal.training_cli import TrainingCLI

            TrainingCLI(words)
    except SIGTERMException:
        rank_zero_info("vitlocal: ended by SIGTERM; the same command with --ckpt_path last goes on from here")
        # A process that Lightning started says nothing: it would be taken for one that failed.
        sys.exit(0 if os.environ.get("LOCAL_RANK", "0") != "0" else 128 + signal.SIGTERM)
    except Exception as error:
        sentence = messages.of(error)
        if sentence is None or messages.debugging():
            raise
        messages.leave(sentence)
