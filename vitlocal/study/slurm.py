"""The cells of a study as an array job of SLURM."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def script(name: str, words: Sequence[str], todo: Sequence[int], cpus: int, gpus: int) -> str:
    """Write the job's script; each of its tasks is ``study --cell=N``.

    Args:
        name: of the job.
        words: the command line after ``vitlocal study``, which gives the same study.
        todo: numbers of the cells.
        cpus: cores of each task.
        gpus: GPUs of each task.
    """
    command = shlex.join([sys.executable, "-m", "vitlocal", "study", *words, "--engine=local"])
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={name}",
        f"#SBATCH --array={','.join(map(str, todo))}",
        f"#SBATCH --cpus-per-task={cpus}",
        *([f"#SBATCH --gpus-per-task={gpus}"] if gpus else []),
        "# At its time limit a run saves itself; submitted again, it resumes.",
        "#SBATCH --signal=TERM@120",
        "#SBATCH --requeue",
        f"cd {shlex.quote(str(Path.cwd()))}",
        f'exec srun {command} --cell="$SLURM_ARRAY_TASK_ID"',
    ]
    return "\n".join(lines) + "\n"
