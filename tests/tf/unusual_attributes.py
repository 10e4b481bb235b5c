# SPDX-License-Identifier: Apache-2.0
"""Runs one of our ops with unusual attributes and inputs, in a process that must not crash.

``unusual_attributes.py OP FOLDER``: writes its files into the folder, runs the op with each unusual
value in a graph and eagerly, and prints a JSON list of [mode, attribute, value, class, message].
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))

import numpy as np
import tensorflow as tf
from craft.bundle import Bundle
from craft.ordered_code import slice_key

import tensorbundle as tb

MOST = 2**63 - 1
NUMBERS = [-MOST - 1, -MOST, -(2**32), -2, -1, 0, 1, 2, 3, 5, 2**31 - 1, 2**31, 2**32, 2**61,
           2**62, 2**62 + 1, MOST - 3, MOST]  # fmt: skip
TYPES = [tf.float64, tf.int32, tf.string, tf.bool, tf.resource, tf.variant, tf.qint8,
         tf.as_dtype("int4"), tf.float32._as_ref]  # fmt: skip
TEXTS = ["", "\0", "no such", "%s%n", "a" * 5000, b"\xff\xfe", b"a\xc3", "\u00e9", "t\0",
         "/dev/null", "/", "x-?????-of-99999", "x-?????-of-00000"]  # fmt: skip
SPECS = ["", " ", "\0", "-", "3 4", "3 4 ", "3 4 -", "3 4 -:-:-", "3 4 0,0:-", "3 4 -1,1:-",
         "3 4 2,2:-", "3 4 0,9223372036854775807:-", "3 4 9223372036854775807,1:-",
         "3 4 1,18446744073709551615:-", "4 3 -:-", "-3 4 -:-", "3 4 -:-\0", "3  4 -:-", "+3 4 -:-",
         "3 4 0,1,1:-", "3 4 0x1,1:-", "99999999999999999999 4 -:-", "3 " * 9999 + "-"]  # fmt: skip


def write(folder: Path) -> dict[str, Any]:
    """Writes the files; returns valid attributes for each op."""
    bundle = Bundle()
    bundle.pad(64 - len(bundle.shards[0]) % 64)
    bundle.add("t", np.arange(12, dtype=np.float32).reshape(3, 4))
    bundle.add("t3", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    bundle.add_strings("s", [b"a", b"\xff\0"], (2,))
    # Tensors with a huge declared shape and one stored element.
    for name, number, shape in (("f60", 1, 2**60), ("i62", 6, 2**62)):
        dtype = np.float32 if number == 1 else np.int8
        bundle.add(slice_key(name.encode(), [(0, 1)]), np.zeros(1, dtype))
        bundle.add_full(name, number, (shape,), [[(0, 1)]])
    bundle.add(slice_key(b"wide", [(0, 1), (0, 1)]), np.zeros((1, 1), np.float32))
    bundle.add_full("wide", 1, (3, 2**50), [[(0, 1), (0, 1)]])
    bundle.add_strings(slice_key(b"s60", [(0, 1)]), [b"a"], (1,))
    bundle.add_full("s60", 7, (2**60,), [[(0, 1)]])
    prefix = str(bundle.write(folder / "ck"))
    (folder / "old").write_text("a\nb\nc\n")
    (folder / "new").write_text("c\nx\na\n")
    vocabs = {"new_vocab": str(folder / "new"), "old_vocab": str(folder / "old")}
    tensor = {"prefix": prefix, "tensor": "t", "dtype": tf.float32}
    return {
        "read": {**tensor, "slice_spec": "", "threads": 0},
        "map": {**tensor, "slice_specs": ["3 4 -:-"], "threads": 0, "N": 1},
        "verify": {**tensor, "parts": []},
        "missing": {**vocabs, "num_new": 3, "new_size": -1, "old_size": -1, "offset": 0,
                    "cells_per_entry": 1, "out_type": tf.int64},
        "remap": {**tensor, **vocabs, "axis": 0, "num_rows": 3, "num_cols": -1, "num_oov": 0,
                  "offset": 0, "new_size": -1, "old_size": -1, "shape": [3, 4], "threads": 0,
                  "fill_layout": "zero", "fills": []},
    }  # fmt: skip


def unusual_changes(op: str, valid: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields changes to the valid attributes: of each attribute alone, and of several together."""
    for name, value in valid.items():
        if isinstance(value, tf.DType):
            yield from ({name: other} for other in TYPES)
        elif isinstance(value, int) and name != "N":  # TensorFlow creates N nodes.
            yield from ({name: number} for number in NUMBERS)
        elif name == "slice_spec":
            yield from ({name: spec} for spec in SPECS)
        elif name == "slice_specs":
            yield from (
                {name: specs, "N": len(specs)} for specs in ([], SPECS, *([s] for s in SPECS))
            )
        elif name == "fill_layout":
            yield from ({name: word} for word in ("cells", "full", "none", "", "\0"))
        elif isinstance(value, str):
            yield from ({name: text} for text in TEXTS)
    for tensor, dtype in (("f60", tf.float32), ("i62", tf.int8), ("wide", tf.float32),
                          ("s60", tf.string), ("t3", tf.float32), ("s", tf.string)):  # fmt: skip
        if "tensor" in valid:
            yield {"tensor": tensor, "dtype": dtype}
    if op == "read":
        yield {"tensor": "s60", "dtype": tf.string, "slice_spec": f"{2**60} 1,{2**60 - 1}"}
        yield {"tensor": "f60", "slice_spec": f"{2**60} 1,{2**60 - 1}"}
    if op == "map":
        yield from ({"slice_specs": ["3 4 -:-"] * 3, "N": count} for count in (1, 2, 3, 4))
    if op == "verify":
        yield from ({"parts": [part]} for part in unusual_parts())
    if op == "remap":
        yield from unusual_remaps()


def unusual_parts() -> Iterator[Any]:
    for shape in ([], [4], [1, 3], [1, 5], [0, 3], [1, 4, 1], [4, 0]):
        yield np.zeros(shape, np.int64)
    for row in itertools.product((-1, 0, 2**62), (-1, 0, 40, 2**62), (0, 49, 2**62), (0, 2**32)):
        yield np.array([row], np.int64)


def unusual_remaps() -> Iterator[dict[str, Any]]:
    # Excludes sizes that a larger machine could allocate: TensorFlow waits for memory.
    for axis, oov in itertools.product(
        (0, 1, 2, 3), [n for n in NUMBERS if 0 <= n < 9 or n > 2**60]
    ):
        columns = -1 if axis == 0 else 3
        wrapped = [3 + (oov if axis == 0 else 0), 3 + oov if axis else 4]
        shape = [(n + 2**63) % 2**64 - 2**63 for n in wrapped]
        yield {"axis": axis, "num_oov": oov, "num_cols": columns, "shape": shape}
    for shape in ([], [3], [3, 4, 1], [-1, 4], [3, -4], [0, 0], [3] * 300, [2**62, 4], [4, 3]):
        yield {"shape": shape}
    yield {"axis": 1, "num_rows": 0, "num_cols": 3, "offset": 3, "shape": [0, 3]}
    yield {"axis": 1, "offset": MOST, "num_cols": 3, "shape": [3, 3]}
    yield {"tensor": "wide", "shape": [3, 2**50]}
    yield {"tensor": "wide", "axis": 1, "num_cols": 3, "shape": [3, 3]}
    for axis in (2, 3):
        yield {"tensor": "t3", "axis": axis, "num_rows": 2, "num_cols": 3, "shape": [2, 3, 4]}
    fills = [
        np.zeros(shape, dtype)
        for shape in ([], [0], [3, 4], [4, 3], [4], [4, 1], [12])
        for dtype in (np.float32, np.float64)
    ]
    fills.append(np.full([3, 4], b"x", object))
    for layout, fill in itertools.product(("zero", "cells", "full"), fills):
        yield {"fill_layout": layout, "fills": [fill]}
        yield {"fill_layout": layout, "fills": [fill, fill]}
    rng = random.Random(7)
    for _ in range(150):
        names = rng.sample(["axis", "num_rows", "num_cols", "num_oov", "offset", "new_size"], 3)
        changes: dict[str, Any] = {name: rng.choice(NUMBERS) for name in names}
        changes["shape"] = [rng.choice(NUMBERS) for _ in range(rng.randint(0, 3))]
        yield changes


def outcome(function: Any, mode: str, attributes: dict[str, Any]) -> tuple[str, str]:
    """Returns the exception's class, or ``"fine"``, and its message."""
    try:
        if mode == "eager":
            function(**attributes)
        else:
            with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
                session.run(function(**attributes))
    except Exception as error:
        return type(error).__name__, str(error)
    return "fine", ""


def main(op: str, folder: Path) -> None:
    valid = write(folder)[op]
    function = getattr(tb.tf.load_op_library(), f"tensorbundle_{op}_v1")
    outcomes = []
    for mode in ("graph", "eager"):
        outcomes.append([mode, "", "", *outcome(function, mode, valid)])
        for changes in unusual_changes(op, valid):
            kind, message = outcome(function, mode, {**valid, **changes})
            outcomes.append([mode, ",".join(changes), repr(changes)[:200], kind, message])
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
