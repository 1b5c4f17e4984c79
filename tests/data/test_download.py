import hashlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.data.bad_server import BadServer, refused_url
from vitlocal.data import download as module
from vitlocal.data.download import RemoteFile, check_sources, download
from vitlocal.errors import InputError

CONTENT = np.random.default_rng(0).bytes(200_000)
SIZE = len(CONTENT)
TIMEOUTS = {"silent": 1, "stalls": 1, "crawls": 1}
"""Seconds of patience with the sources that need it to run out; else enough for a busy machine."""


@pytest.fixture
def server():
    with BadServer(CONTENT) as server:
        yield server


@pytest.fixture
def remote(server):
    md5 = hashlib.md5(CONTENT).hexdigest()
    return RemoteFile("archive.bin", SIZE, md5, (server.url("good"),))


def get(remote, folder, *sources):
    timeout = min(TIMEOUTS.get(source.split("/")[3], 20) for source in sources or remote.sources)
    return download(remote, folder, sources or None, timeout)


def left(folder):
    """Names and sizes of what is in the folder, but for the lock's file."""
    return {file.name: file.stat().st_size for file in folder.iterdir() if file.suffix != ".lock"}


def part(size):
    return {"archive.bin.part": size} if size else {}


FAULTS = [
    ("missing", "answers 404 Not Found", 0),
    ("broken", "answers 503 Service Unavailable", 0),
    ("silent", "gives no byte for 1 s", 0),
    ("stalls", "gives no byte for 1 s", SIZE // 4),
    ("truncates", f"broke off after {SIZE // 2} of {SIZE} bytes", SIZE // 2),
    ("truncates_unannounced", f"broke off after {SIZE // 2} of {SIZE} bytes", SIZE // 2),
    ("announces_more", f"announces {SIZE + 1000} bytes where {SIZE} are due", 0),
    ("announces_less", f"announces {SIZE - 1000} bytes where {SIZE} are due", 0),
    ("web_page", f"announces 20 bytes where {SIZE} are due", 0),
    ("endless", f"gives more than the file's {SIZE} bytes", 0),
    ("wrong_bytes", "gave a file with another MD5", 0),
    ("garbage", "no HTTP at all", 0),
    ("always_a_part", "gives a part when asked for the whole file", 0),
    ("redirects_for_ever", "answers 302 .*infinite loop", 0),
    ("redirects_to_a_file", "answers 302 .*file:///etc/passwd", 0),
    ("refused", "Connection refused", 0),
]


@pytest.mark.parametrize(("fault", "said", "kept"), FAULTS)
def test_a_fault_is_said_and_the_next_source_is_tried(server, remote, tmp_path, fault, said, kept):
    source = refused_url() if fault == "refused" else server.url(fault)
    with pytest.raises(InputError, match=said) as error:
        get(remote, tmp_path, source)
    message = str(error.value)
    for wanted in (source, remote.name, remote.md5, str(tmp_path), "--data.sources"):
        assert wanted in message
    assert message.isprintable()
    assert left(tmp_path) == part(kept)
    # The same run turns to the next source, with what has come.
    second = tmp_path / "second"
    assert get(remote, second, source, server.url("good")).read_bytes() == CONTENT
    assert left(second) == {"archive.bin": SIZE}
    assert server.sent["good"] == SIZE - kept


@pytest.mark.parametrize("fault", ["missing", "stalls", "truncates", "wrong_bytes", "announces_less"])
def test_a_fault_after_an_interruption(server, remote, tmp_path, fault):
    (tmp_path / "archive.bin.part").write_bytes(CONTENT[:60_000])
    with pytest.raises(InputError):
        get(remote, tmp_path, server.url(fault))
    rest = SIZE - 60_000
    kept = {"stalls": 60_000 + rest // 4, "truncates": 60_000 + rest // 2, "wrong_bytes": 0}
    assert left(tmp_path) == part(kept.get(fault, 60_000))
    assert get(remote, tmp_path, server.url(fault), server.url("good")).read_bytes() == CONTENT


def test_only_the_rest_is_fetched(server, remote, tmp_path):
    with pytest.raises(InputError):
        get(remote, tmp_path, server.url("truncates"))
    assert get(remote, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("truncates", 0), ("good", SIZE // 2)]
    assert server.sent == {"truncates": SIZE // 2, "good": SIZE - SIZE // 2}


def test_redirects_keep_the_range(server, remote, tmp_path):
    (tmp_path / "archive.bin.part").write_bytes(CONTENT[:60_000])
    assert get(remote, tmp_path, server.url("redirects")).read_bytes() == CONTENT
    assert server.sent["good"] == SIZE - 60_000


@pytest.mark.parametrize(
    ("fault", "sent"),
    [("ignores_range", SIZE), ("wrong_range", SIZE), ("no_such_range", SIZE), ("lies_about_range", None)],
)
def test_ranges_that_are_not_what_was_asked_for(server, remote, tmp_path, fault, sent):
    (tmp_path / "archive.bin.part").write_bytes(CONTENT[:60_000])
    assert get(remote, tmp_path, server.url(fault)).read_bytes() == CONTENT
    assert left(tmp_path) == {"archive.bin": SIZE}
    assert [start for _, start in server.requests] == ([60_000] if fault == "ignores_range" else [60_000, 0])
    if sent is not None and fault != "wrong_range":  # where the client hangs up, the server sends on a little
        assert server.sent[fault] == sent


@pytest.mark.parametrize("count", [60_000, SIZE - 1, SIZE, SIZE + 1])
def test_a_wrong_part_is_thrown_away(server, remote, tmp_path, count):
    (tmp_path / "archive.bin.part").write_bytes(bytes(count))
    assert get(remote, tmp_path).read_bytes() == CONTENT
    assert left(tmp_path) == {"archive.bin": SIZE}
    assert server.requests[-1] == ("good", 0)


def test_a_whole_part_needs_no_source(server, remote, tmp_path):
    (tmp_path / "archive.bin.part").write_bytes(CONTENT)
    assert get(remote, tmp_path).read_bytes() == CONTENT
    assert server.requests == []


def test_a_crawling_source_is_left_while_another_is_untried(server, remote, tmp_path):
    assert get(remote, tmp_path, server.url("crawls"), server.url("good")).read_bytes() == CONTENT
    assert [fault for fault, _ in server.requests] == ["crawls", "good"]
    assert 0 < server.requests[1][1] < SIZE  # what it gave is kept
    assert server.sent["good"] == SIZE - server.requests[1][1]


def test_a_crawling_source_is_better_than_none(server, remote, tmp_path):
    assert get(remote, tmp_path, server.url("crawls"), server.url("missing")).read_bytes() == CONTENT
    assert [fault for fault, _ in server.requests] == ["crawls", "missing", "crawls"]
    assert server.requests[2][1] > 0


def test_a_source_that_breaks_off_is_asked_again_while_it_gives_enough(server, remote, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WORTH_ANOTHER_TURN", 20_000)
    with pytest.raises(InputError, match="broke off"):
        get(remote, tmp_path, server.url("truncates"))
    # Half of what is left each time: 100,000, 50,000, 25,000, and 12,500, which is not enough.
    assert [start for _, start in server.requests] == [0, 100_000, 150_000, 175_000]


def test_every_source_is_named(server, remote, tmp_path):
    sources = [server.url("missing"), refused_url(), server.url("wrong_bytes")]
    with pytest.raises(InputError) as error:
        get(remote, tmp_path, *sources)
    assert all(source in str(error.value) for source in sources)


def test_file_urls(remote, tmp_path):
    (tmp_path / "mirror.bin").write_bytes(CONTENT)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/archive.bin.part").write_bytes(CONTENT[:5])
    source = (tmp_path / "mirror.bin").as_uri()
    assert get(remote, tmp_path / "data", source).read_bytes() == CONTENT
    with pytest.raises(InputError, match="No such file"):
        get(remote, tmp_path / "other", source + ".gone")


def test_a_file_that_is_there_is_not_touched(server, remote, tmp_path):
    path = get(remote, tmp_path)
    server.requests.clear()
    assert get(remote, tmp_path) == path
    path.write_bytes(b"other")
    with pytest.raises(InputError, match=f"does not have the MD5 {remote.md5}.*remove it"):
        get(remote, tmp_path)
    assert path.read_bytes() == b"other"
    assert server.requests == []


def test_where_nothing_can_be_written(remote, tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(InputError, match=r"data/archive\.bin can't be written .*choose another folder"):
        get(remote, tmp_path / "data")


def test_full_disk(remote, tmp_path):
    # /dev/full: every write to it fails as on a full disk.
    (tmp_path / "archive.bin.part").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"can't be written .*No space left on device.*make room"):
        get(remote, tmp_path)
    assert not (tmp_path / "archive.bin").exists()


def test_progress_is_shown(remote, tmp_path, capsys):
    get(remote, tmp_path)
    shown = capsys.readouterr().err
    assert "archive.bin: 100%" in shown and "200k/200k" in shown


@pytest.mark.parametrize(
    ("sources", "timeout", "message"),
    [
        ([], 1, "sources is empty"),
        (["archive.bin"], 1, "'archive.bin' .*: give http://, https:// or file:// URLs"),
        (["ftp://host/a"], 1, "ftp://host/a"),
        (["http:///a"], 1, "http:///a"),
        (["http://host:99999/a"], 1, "Port out of range"),
        (["http://[host/a"], 1, "Invalid IPv6 URL"),
        (None, 0, "timeout=0: give seconds above 0"),
        (None, float("nan"), "timeout=nan"),
        (None, float("inf"), "timeout=inf"),
    ],
)
def test_wrong_arguments(sources, timeout, message):
    with pytest.raises(InputError, match=message):
        check_sources(sources, timeout)


DOWNLOAD = """
import sys
from pathlib import Path
from vitlocal.data.download import RemoteFile, download
name, size, md5, source, folder = sys.argv[1:]
download(RemoteFile(name, int(size), md5, (source,)), Path(folder), None, 60)
"""


def test_a_killed_process_blocks_nobody_and_is_continued(server, remote, tmp_path):
    arguments = [remote.name, str(remote.size), remote.md5, server.url("stalls"), str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-c", DOWNLOAD, *arguments], stderr=subprocess.DEVNULL)
    try:
        started = time.monotonic()
        while left(tmp_path).get("archive.bin.part", 0) < SIZE // 8 and time.monotonic() - started < 60:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait(10)
    done = (left(tmp_path)["archive.bin.part"],)
    assert get(remote, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("stalls", 0), ("good", *done)]
