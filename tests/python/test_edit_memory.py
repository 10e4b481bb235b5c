# SPDX-License-Identifier: Apache-2.0
"""``edit`` takes little memory, whatever the size, layout and changes of a tensor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle
from craft.v1 import V1File

LIMIT = 96 << 20
SIZE = 40 << 20  # elements: 160 MB in float32

SCRIPT = """
import json, sys, threading
import tensorbundle as tb

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())

src, dst, options = json.loads(sys.argv[1])
tb.edit(src, dst, dry_run=True, **options)
done, peak = threading.Event(), 0
before = anonymous()
thread = threading.Thread(target=watch)
thread.start()
tb.edit(src, dst, overwrite=True, threads=4, **options)
done.set()
thread.join()
print(max(peak, anonymous()) - before)
"""

CAST = {"cast": {"float32": "bfloat16"}}
WIDEN = {"cast": {"float32": "float64"}}
TURN = {"transpose": {"t": True}}


def make(folder: Path, layout: str, shape: tuple[int, ...]) -> Path:
    array = np.arange(SIZE, dtype=np.float32).reshape(shape)
    path = folder / "c"
    if layout == "v1":
        file = V1File()
        file.add("t", 1, array)
        return file.write(path)
    bundle = Bundle(big_endian=layout == "big-endian")
    if layout == "sliced":
        boxes = tilings.grid(shape, [[shape[0] // 2] * 2, [shape[1] // 4] * 4])
        bundle.add_sliced("t", array, boxes)
    else:
        bundle.add("t", array)
    return bundle.write(path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("layout", "shape", "options"),
    [
        ("whole", (40960, 1024), [{}, CAST, WIDEN, TURN, CAST | TURN, {"partition": {"t": 7}}]),
        ("whole", (1, SIZE), [CAST, TURN]),
        ("whole", (SIZE, 1), [CAST | TURN]),
        (
            "sliced",
            (40960, 1024),
            [{}, CAST, CAST | TURN, {"merge": True}, {"partition": {"t": 3}}],
        ),
        ("big-endian", (40960, 1024), [{}, CAST | TURN]),
        ("v1", (40960, 1024), [{}, CAST | TURN]),
    ],
    ids=["whole", "row", "column", "sliced", "big-endian", "v1"],
)
def test_memory_is_bounded(
    layout: str, shape: tuple[int, ...], options: list[dict[str, Any]], tmp_path: Path
) -> None:
    source = make(tmp_path, layout, shape)
    for each in options:
        arguments = json.dumps([str(source), str(tmp_path / "d"), each])
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT, arguments], capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        assert int(result.stdout) < LIMIT, (layout, each)
