import os

import pytest

from vitlocal.data.memory import memory_limit

PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, PHYSICAL),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000000\n"}, 1000000),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, PHYSICAL),
        # As docker without a namespace of its own shows it.
        ({"proc/self/cgroup": "0::/docker/1a2b\n", "sys/fs/cgroup/memory.max": "1000000\n"}, 1000000),
        # A SLURM job whose step has more than the job.
        (
            {
                "proc/self/cgroup": "0::/slurm/job/step\n",
                "sys/fs/cgroup/slurm/job/memory.max": "2000000\n",
                "sys/fs/cgroup/slurm/job/step/memory.max": "3000000\n",
            },
            2000000,
        ),
        (
            {
                "proc/self/cgroup": "12:cpu,cpuacct:/a\n3:memory:/a\n0::/\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "5000000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            5000000,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{2 * PHYSICAL}\n"}, PHYSICAL),
    ],
    ids=["none", "version 2", "unlimited", "docker", "slurm", "version 1", "more than there is"],
)
def test_the_least_limit_counts(tmp_path, files, limit):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert memory_limit(tmp_path) == limit
