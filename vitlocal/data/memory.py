"""How much memory there is."""

import os
from pathlib import Path


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes that this process may use: the machine's, or what a container leaves of them.

    Args:
        root: of the file system, where Linux tells the control groups' limits.
    """
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(physical, *_group_limits(root), physical)


def _group_limits(root: Path) -> list[int]:
    """The limits of this process's control groups and of those that they are in, by versions 1 and 2."""
    limits = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        own = base / path.lstrip("/")
        # In a container the path may be the host's, of which only the base is to be seen.
        for folder in (own, *own.parents):
            if folder.is_relative_to(base) and (said := _text(folder / name).strip()).isdecimal():
                limits.append(int(said))
    return limits


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
