"""What CIFAR10 says and leaves on disk when its sources are bad, and two processes at once.

    python tests/tools/bad_server_report.py

A local server plays each fault. "then" is what a second run does, which is given a good source too: the
bytes that it had to fetch of those of the archive.
"""

import contextlib
import io
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from torchvision.datasets import CIFAR10 as READER

from tests.data import official, two_at_once
from tests.data.bad_server import BadServer, Handler, refused_url
from vitlocal.data import CIFAR10
from vitlocal.errors import InputError

GOOD = ("good", "paced", "redirects", "ignores_range", "wrong_range", "lies_about_range", "no_such_range")
NOT_FAULTS = ("do_GET", "log_message", "head", "body", *GOOD[3:])
TIMEOUT = 0.5


def visible(folder):
    items = [item for item in sorted(folder.glob("*")) if item.suffix != ".lock"]
    return ", ".join(
        f"{item.name}/" if item.is_dir() else f"{item.name} ({item.stat().st_size})" for item in items
    )


def prepare(folder, *sources):
    """Fetch the data set quietly; what was said, or None."""
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            CIFAR10(path=str(folder), sources=list(sources), timeout=TIMEOUT).prepare_data()
        except InputError as error:
            return str(error)
    return None


def report(fault, server, folder, start=b""):
    source = refused_url() if fault == "refused" else server.url(fault)
    if start:
        folder.mkdir()
        (folder / f"{READER.filename}.part").write_bytes(start)
    message = prepare(folder, source)
    said = (
        "nothing: it works" if message is None else re.sub(r"^.*?\(http\S+: (.*)\): put .*$", r"\1", message)
    )
    left = visible(folder) or "nothing"
    then = ""
    if message is not None:
        server.sent.clear()
        again = prepare(folder, source, server.url("good"))
        then = again or f"works, {server.sent['good']} bytes"
    print(f"| {fault}{' after an interruption' if start else ''} | {said} | {left} | {then} |")


def main():
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        made = official.cifar(READER, root)
        for name, value in made.reader.items():
            setattr(READER, name, value)
        CIFAR10.archive_size = made.size
        content = made.archive.read_bytes()
        faults = [name for name in vars(Handler) if name not in NOT_FAULTS and not name.startswith("_")]
        print(f"The archive has {made.size} bytes; timeout {TIMEOUT} s.\n")
        print("| the source | what was said of it | left on disk | then, with a good source |")
        print("|---|---|---|---|")
        with BadServer(content) as server:
            for fault in ["refused", *faults]:
                report(fault, server, root / fault)
            for fault in GOOD[2:]:
                report(fault, server, root / f"{fault}-resumed", content[: made.size // 3])
            server.requests.clear()
            message = prepare(root / "crawl", server.url("crawls"), server.url("good"))
            print(f"\nA crawling source, then a good one: {message or 'works'}; requests: {server.requests}")
            print(f"\nA sentence whole:\n{prepare(root / 'whole', server.url('missing'), refused_url())}")
        with BadServer(content) as server:
            spec = two_at_once.cifar10_spec(made, server.url("paced"))
            codes, said = two_at_once.run([spec], root / "two")
            print(f"\nTwo processes at once on an empty folder: exit codes {codes}")
            print(f"requests: {server.requests}, bytes served: {server.sent.total()} of {made.size}")
            print(f"left on disk: {visible(root / 'two')}")
            for number, text in enumerate(said):
                lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
                print(f"process {number} said at last: {lines[-1] if lines else 'nothing'}")


if __name__ == "__main__":
    main()
