# SPDX-License-Identifier: Apache-2.0
"""What the figures were measured on: never the machine's name, nor any path."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import tensorbundle as tb
from bench import ceiling, data, rivals


def facts() -> dict[str, Any]:
    """Processor, memory, system, versions and date."""
    return {
        "processor": _line("/proc/cpuinfo", "model name") or platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "last_level_cache": _cache(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "virtual": "hypervisor" in (_line("/proc/cpuinfo", "flags") or "").split(),
        "file_system": _file_system(),
        "compiler": _compiler(),
        "python": platform.python_version(),
        "tensorbundle": tb.__version__,
        **{name: rivals.version(name) for name in rivals.PACKAGES},
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def _line(file: str, name: str) -> str | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), None)


def _cache() -> str | None:
    sizes = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    return sizes[-1].read_text().strip() if sizes else None


def _file_system() -> str | None:
    """The type of the file system that the data lie on."""
    data.root().mkdir(parents=True, exist_ok=True)
    device = data.root().stat().st_dev
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        left, _, right = line.partition(" - ")
        if left.split()[2] == f"{os.major(device)}:{os.minor(device)}":
            return right.split()[0]
    return None


def _compiler() -> str | None:
    command = ceiling.compiler()
    if command is None:
        return None
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    return (
        done.stdout.splitlines()[0].split(" (")[0] + " " + done.stdout.splitlines()[0].split()[-1]
    )
