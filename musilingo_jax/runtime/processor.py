"""The processor of this machine: its name, its bfloat16 units, the memory that is free.

Products of bfloat16 numbers are fast where the processor has units for them, and slower
than those of float32 numbers elsewhere. Linux lists the units in /proc/cpuinfo:

    x86    flags: … avx512_bf16 … amx_bf16     Xeon since 2021 or 2023, EPYC since 2022
    ARM    Features: … bf16                    Graviton 3, for one
"""

import os
import platform
import re
from pathlib import Path

_UNITS = {"avx512_bf16", "amx_bf16", "bf16"}
_CGROUPS = Path("/sys/fs/cgroup")


def cpuinfo() -> str:
    """What Linux says of its processors; "" where the system does not say it."""
    try:
        return Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return ""


def name() -> str:
    """The processor's name, or at least its architecture."""
    found = re.search(r"^model name\s*:\s*(\S.*)$", cpuinfo(), re.MULTILINE)
    return found[1].strip() if found else platform.machine() or "unknown processor"


def has_bfloat16_units() -> bool | None:
    """Whether it multiplies bfloat16 numbers itself; None if that cannot be told."""
    listed = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo(), re.MULTILINE)
    return not _UNITS.isdisjoint(listed[1].split()) if listed else None


def described() -> str:
    """The name, and what is known of the units, for figures that depend on them."""
    units = {
        True: "with bfloat16 units",
        False: "without bfloat16 units",
        None: "bfloat16 units unknown",
    }
    return f"{name()}, {units[has_bfloat16_units()]}"


def available_memory() -> int:
    """Bytes that this process can still use.

    That is what Linux counts as available, or the limit of a group that the process is
    in (a container, a job of a scheduler) if that is lower. Where the system does not
    say what is available, it is all memory of the machine.
    """
    try:
        text = Path("/proc/meminfo").read_text()
        said = re.search(r"^MemAvailable:\s*(\d+) kB$", text, re.MULTILINE)
    except OSError:
        said = None
    if said:
        available = 1024 * int(said[1])
    else:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([available, *_limits()])


def _limits() -> list[int]:
    """The limits of memory of the process's group and of those around it, if any."""
    try:
        own = re.search(
            r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE
        )
    except OSError:
        return []
    group = _CGROUPS / (own[1] if own else "")
    limits = []
    for folder in (group, *group.parents):
        try:
            limit = (folder / "memory.max").read_text().strip()
        except OSError:
            continue
        if limit.isdecimal():  # Or "max".
            limits.append(int(limit))
    return limits
