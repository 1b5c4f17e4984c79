"""A cell's process that takes no time: a program in the place of Python, which is given fit's words."""

import stat
import sys
from pathlib import Path

PROGRAM = f"""#!{sys.executable}
import json, os, signal, sys, time
from pathlib import Path

words = sys.argv[1:]
root = Path(next(word.partition("=")[2] for word in words if word.startswith("--trainer.default_root_dir")))
run = root / "lightning_logs" / "digits-x" / "version_0"
with (root / "calls.jsonl").open("a") as file:
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    file.write(json.dumps([words, {{name: os.environ.get(name) for name in names}}]) + "\\n")

def write(epoch):
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "metrics.csv").write_text("epoch\\n" + "".join(f"{{n}}\\n" for n in range(1, epoch + 1)))
    (run / "checkpoints" / "last.ckpt").touch()

condition = root.parent.name
if condition == "fails":
    print("starting")
    print("vitlocal: error: the disk is full")
    sys.exit(1)
if condition == "waits" and "--ckpt_path=last" not in words:
    write(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    time.sleep(30)
    sys.exit(9)
if condition == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
write(2)
"""


def install(monkeypatch, folder):
    """Have cells start it."""
    path = Path(folder) / "stand_in"
    path.write_text(PROGRAM)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(path))
