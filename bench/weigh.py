# SPDX-License-Identifier: Apache-2.0
"""Weighs one contender in a process of its own: memory, bytes read, pages touched.

``python -m bench.weigh MODULE CASE CONTENDER`` prints one JSON object.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

from bench import ceiling, child, page_cache
from bench.case import NONE, Case, Contender


def weigh(module: str, case: Case, contender: Contender) -> dict[str, int]:
    """Lets a child process weigh one contender.

    Returns:
        ``anonymous``: the most memory that was not a file's, beyond what was there when the run
        began. ``resident``: the same, with the mapped pages of files. ``read``: bytes handed over
        by read calls. ``disk``: bytes that came from the disk. ``touched``: bytes of the case's
        files that one run brought into the empty page cache. What the system does not tell is
        left out.

    Raises:
        RuntimeError: The child failed.
    """
    return child.call("bench.weigh", module, case, contender)


def _weigh_here(case: Case, contender: Contender) -> dict[str, int]:
    with contender.start() as run:
        # Who reads a format of its own does not touch these files.
        reads_them = case.touched and contender.checksum != NONE
        touched = case.touched() if reads_them else ()
        empty = _emptied(touched) or (case.cold is not None and _emptied(case.cold()))
        gc.collect()
        _forget_peak()
        sampling = ceiling.unavailable() is None and not ceiling.library().memory_sampler_start()
        before = _facts()
        run()
        after = _facts()
        found = {
            "resident": after["VmHWM"] - before["VmRSS"],
            "read": after["rchar"] - before["rchar"],
            "disk": after["read_bytes"] - before["read_bytes"],
        }
        if sampling:
            peak = ceiling.library().memory_sampler_stop()
            found["anonymous"] = max(0, peak - before["RssAnon"])
        if touched and empty:
            found["touched"] = sum(map(page_cache.resident, touched))
    return found


def _emptied(paths: Any) -> bool:
    try:
        page_cache.drop(paths)
    except OSError:
        return False
    return bool(paths)


def _forget_peak() -> None:
    """Makes VmHWM start again from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def _facts() -> dict[str, int]:
    found = {}
    for line in Path("/proc/self/io").read_text().splitlines():
        name, value = line.split(": ")
        found[name] = int(value)
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if rest.endswith(" kB"):
            found[name] = int(rest.split()[0]) * 1024
    return found


def main(*arguments: str) -> None:
    print(json.dumps(_weigh_here(*child.asked_for(*arguments))))


if __name__ == "__main__":
    main(*sys.argv[1:])
