# SPDX-License-Identifier: Apache-2.0
"""The command ``show``: one tensor's metadata, stored slices, values, statistics and histogram."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import click
import numpy as np

import tensorbundle
from tensorbundle import blocks, explain, terminal
from tensorbundle.cli_ls import bounds_text, describe_tensor, number_text
from tensorbundle.cli_options import (
    OK,
    TensorName,
    checkpoint_argument,
    damaged,
    dtype_text,
    examples,
    json_option,
)
from tensorbundle.rules import Glob
from tensorbundle.tables import count_text, plural, shape_text, size_text
from tensorbundle.tensor import Tensor
from tensorbundle.tensor_stats import (
    Histogram,
    TensorStats,
    compute_histogram,
    compute_stats,
    has_stats,
)
from tensorbundle.terminal import Column

# Values of larger tensors are shown in part if no index is given: the first ones in a pipe, the
# corners on a terminal.
_MAX_VALUES = 1000
_MAX_VALUES_FOR_PEOPLE = 100
# Larger tensors are not copied to show their corners.
_MAX_COPIED = 64 << 20
# Strings are cut at this length for people.
_MAX_STRING = 60

_BINS = 16
_BLOCKS = " ▏▎▍▌▋▊▉█"

_INDEX_PART = re.compile(r"\s*(?:(\.\.\.)|([+-]?\d*)(?:(:)([+-]?\d*)(?:(:)([+-]?\d*))?)?)\s*")
_NEGATIVE = re.compile(r"-[0-9]+(?:$|[:,])")


@dataclasses.dataclass(frozen=True)
class _Shown:
    """What is shown of a tensor.

    Attributes:
        tensor: The tensor.
        full_name: Its full name in the object graph.
        index: The index of the values.
        values: The values; None if there are too many.
        stats: The statistics, if they were requested.
        histogram: The histogram, if statistics were requested.
    """

    tensor: Tensor
    full_name: str | None
    index: str
    values: Any
    stats: TensorStats | None
    histogram: Histogram | None


class _Show(click.Command):
    """A command whose index may be negative, which click takes for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments; a space before an index makes it an argument."""
        end = args.index("--") if "--" in args else len(args)
        spaced = [f" {arg}" if _NEGATIVE.match(arg) else arg for arg in args[:end]]
        return super().parse_args(ctx, spaced + args[end:])


@click.command(
    "show",
    cls=_Show,
    short_help="Show one tensor with its values and checksums.",
    epilog=examples(
        "tensorbundle show model.ckpt-1000 global_step",
        "tensorbundle show model.ckpt-1000 embedding 0:3,:8",
        "tensorbundle show model.ckpt-1000 embedding --stats",
    ),
)
@checkpoint_argument
@click.argument("name", metavar="NAME", type=TensorName())
@click.argument("index", metavar="[INDEX]", default="")
@click.option("--stats", is_flag=True, help="Show statistics and a histogram of the values.")
@click.option("--full", is_flag=True, help="Show all values, not only the first and last ones.")
@json_option
def show(checkpoint: str, name: str, index: str, stats: bool, full: bool, as_json: bool) -> int:
    """Shows one tensor: its values, stored slices and checksums.

    NAME is a key of the checkpoint, or a full name of its object graph. INDEX selects values as in
    NumPy: '0', '10:20', '0:3,:5', '...,-1'. Without it, large tensors are shown in part.

    In a pipe, the lines are "value", index, value, separated by tabs, after those of the metadata.
    Without INDEX and --full these are at most the first 1000 values.

    Exit status: 1 if the values do not match their checksums.
    """
    key = parse_index(index)
    with tensorbundle.open(checkpoint) as opened:
        if not Glob(name).is_literal and name not in opened:
            raise click.UsageError(
                f"NAME is one tensor, not a pattern: `tensorbundle ls CKPT {name!r}` lists those "
                "that match"
            )
        tensor = opened[name]
        try:
            shown = _read(opened, tensor, index, key, stats, full)
        except tensorbundle.CorruptionError as error:
            return damaged(error)
        if as_json:
            _print_document(checkpoint, shown, full or bool(index))
        elif terminal.for_people():
            _print_for_people(shown, full)
        else:
            _print_lines(shown, full or bool(index))
    return OK


def parse_index(text: str) -> tuple[Any, ...] | None:
    """Returns the basic index that a text stands for: ``0:3,-1``; None for an empty text.

    Raises:
        click.UsageError: The text is not an index.
    """
    text = text.strip().removeprefix("[").removesuffix("]")
    if not text:
        return None
    parts: list[Any] = []
    for part in text.split(","):
        found = _INDEX_PART.fullmatch(part)
        if found is None or not part.strip():
            raise click.UsageError(
                f"{part.strip()!r} is not an index: give integers, slices such as 0:10, or '...'"
            )
        ellipsis, first, colon, stop, _, step = found.groups()
        if ellipsis:
            parts.append(...)
        elif colon:
            parts.append(slice(*(_bound(bound) for bound in (first, stop, step))))
        else:
            parts.append(_bound(first))
    return tuple(parts)


def _bound(text: str | None) -> int | None:
    if not text:
        return None
    if len(text) > 20 or text in "+-":
        raise click.UsageError(f"{text[:20]!r} is not an index")
    return int(text)


def _read(
    opened: tensorbundle.Checkpoint,
    tensor: Tensor,
    index: str,
    key: tuple[Any, ...] | None,
    wants_stats: bool,
    full: bool,
) -> _Shown:
    if key is not None or full or tensor.size <= _MAX_VALUES:
        try:
            values = tensor.read(... if key is None else key)
        except IndexError as error:
            raise click.UsageError(f"{index}: {error}") from None
        if key is not None or full:
            # A part of a slice is read without its checksum.
            _compare_checksums(opened, tensor)
    else:
        values = None
    stats = histogram = None
    if wants_stats:
        if not has_stats(tensor):
            raise click.UsageError(f"tensors of {dtype_text(tensor)} have no statistics")
        with terminal.progress(opened.path, "read") as report_progress:
            advance = terminal.adder(report_progress, 2 * tensor.nbytes)
            stats = compute_stats(tensor, advance)
            histogram = compute_histogram(tensor, stats, _BINS, advance)
    full_name = opened._read_full_names().by_key.get(tensor.name)
    return _Shown(tensor, full_name, index, values, stats, histogram)


def _compare_checksums(opened: tensorbundle.Checkpoint, tensor: Tensor) -> None:
    for message, number in blocks.damage(opened._core, [tensor]).values():
        if number:
            raise tensorbundle.IOFailure(message, number)
        raise tensorbundle.CorruptionError(message)


def _metadata(shown: _Shown) -> list[tuple[str, str]]:
    tensor = shown.tensor
    obstacle = explain.view_obstacle(tensor._core) if tensor.error is None else None
    rows = [
        ("name", tensor.name),
        ("full name", shown.full_name or ""),
        ("dtype", dtype_text(tensor)),
        ("shape", shape_text(tensor.shape)),
        ("elements", f"{tensor.size:,}"),
        ("size", size_text(tensor.nbytes)),
        ("error", tensor.error or ""),
        ("view", "" if tensor.error else f"a copy: {obstacle}" if obstacle else "without a copy"),
    ]
    return [(title, text) for title, text in rows if text]


def _checksum(crc32c: int | None) -> str:
    return "" if crc32c is None else f"{crc32c:#010x}"


# --- in a pipe, and as JSON


def _print_lines(shown: _Shown, all_values: bool) -> None:
    tensor = shown.tensor
    rows: list[tuple[object, ...]] = [
        ("name", tensor.name),
        ("dtype", dtype_text(tensor)),
        ("shape", shape_text(tensor.shape)),
        ("bytes", tensor.nbytes),
    ]
    if shown.full_name:
        rows.insert(1, ("full_name", shown.full_name))
    if tensor.error:
        rows.append(("error", tensor.error))
    for row in rows:
        terminal.print_line(*row)
    for stored in tensor.slices:
        bounds = bounds_text(stored.offset, stored.shape)
        checksum = _checksum(stored.crc32c)
        terminal.print_line(
            "slice", bounds, stored.file, stored.file_offset, stored.nbytes, checksum
        )
    if shown.stats is not None:
        for name, value in dataclasses.asdict(shown.stats).items():
            terminal.print_line(name, "" if value is None else value)
    if shown.histogram is not None:
        low, high = shown.histogram.edges[:-1], shown.histogram.edges[1:]
        for row in zip(low, high, shown.histogram.counts, strict=True):
            terminal.print_line("bin", *row)
    values = shown.values
    if values is None:
        values = _first_values(tensor)
    for place, value in _elements(values):
        terminal.print_line("value", f"[{','.join(map(str, place))}]", _element_text(value))
    if not all_values and tensor.size > _MAX_VALUES:
        terminal.print_line("omitted", tensor.size - _MAX_VALUES)


def _first_values(tensor: Tensor) -> Any:
    """Returns the leading elements of a large tensor, in an array of its rank."""
    key: list[Any] = []
    room = _MAX_VALUES
    for axis in range(tensor.ndim):
        below = math.prod(tensor.shape[axis + 1 :])
        rows = min(max(room // max(below, 1), 1), tensor.shape[axis])
        key.append(slice(0, rows))
        room //= rows
    return tensor.read(tuple(key))


def _elements(values: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    if isinstance(values, bytes):
        yield (), values
        return
    array = np.asarray(values)
    for place in np.ndindex(array.shape):
        yield place, array[place]


def _element_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value)


def _print_document(checkpoint: str, shown: _Shown, all_values: bool) -> None:
    values = shown.values
    terminal.print_json(
        {
            "path": checkpoint,
            **describe_tensor(shown.tensor),
            "full_name": shown.full_name,
            "error": shown.tensor.error,
            "index": shown.index if all_values else None,
            "values": None if values is None else _as_json(values),
            "stats": None if shown.stats is None else dataclasses.asdict(shown.stats),
            "histogram": None if shown.histogram is None else shown.histogram._asdict(),
        }
    )


def _as_json(values: Any) -> Any:
    if isinstance(values, bytes):
        return values.decode("utf-8", "backslashreplace")
    if isinstance(values, list):
        return [_as_json(value) for value in values]
    if isinstance(values, complex):
        return [values.real, values.imag]
    if isinstance(values, (np.ndarray, np.generic)):
        return _as_json(values.tolist())
    return values if isinstance(values, (bool, int, float, str)) else float(values)


# --- for people


def _print_for_people(shown: _Shown, full: bool) -> None:
    tensor = shown.tensor
    terminal.print_labelled(
        [(title, text, "bad" if title == "error" else "") for title, text in _metadata(shown)]
    )
    _print_stored(tensor)
    if shown.stats is not None:
        _print_stats(shown.stats)
    if shown.histogram is not None and shown.histogram.counts:
        _print_histogram(shown.histogram)
    if tensor.error:
        return
    terminal.print_text()
    values = shown.values
    if values is None:
        # NumPy prints the corners of a large array, and so only touches their pages of a view.
        is_copied = explain.view_obstacle(tensor._core) is not None
        if is_copied and tensor.nbytes > _MAX_COPIED:
            terminal.print_text("Give an INDEX, such as 0, to see values.", "dim")
            return
        values = np.asarray(tensor)
    for line in _values_text(values, full, bool(shown.index)).splitlines():
        terminal.print_text(line)


def _print_stored(tensor: Tensor) -> None:
    columns = [
        Column("slice"),
        Column("size", right=True),
        Column("crc32c"),
        Column("offset", right=True),
        Column("file", fold=True),
    ]
    rows = [
        [
            bounds_text(stored.offset, stored.shape),
            size_text(stored.nbytes),
            _checksum(stored.crc32c),
            f"{stored.file_offset:,}",
            stored.file,
        ]
        for stored in tensor.slices
    ]
    if rows:
        terminal.print_text()
        terminal.print_table(columns, rows)
    if len(rows) > 1:
        terminal.print_text(plural(len(rows), "slice"), "dim")


def _print_stats(stats: TensorStats) -> None:
    rows = []
    for title in ("min", "max", "mean", "std", "zeros", "nan", "inf"):
        value = getattr(stats, title)
        if value is None:
            continue
        is_count = title in ("zeros", "nan", "inf")
        text = f"{value:,}" if is_count else number_text(value)
        if is_count and value and stats.count:
            text += f" ({value / stats.count:.1%})"
        style = "bad" if value and title in ("nan", "inf") else ""
        rows.append((title, text, style))
    terminal.print_text()
    terminal.print_labelled(rows)


def _print_histogram(histogram: Histogram) -> None:
    shown = terminal.look()
    most = max(histogram.counts)
    labels = [
        f"{number_text(low)} to {number_text(high)}"
        for low, high in zip(histogram.edges, histogram.edges[1:], strict=False)
    ]
    counts = [count_text(count) for count in histogram.counts]
    width = max(map(len, labels))
    count_width = max(map(len, counts))
    room = min(max(shown.width - width - count_width - 6, 8), 60)
    terminal.print_text()
    for label, count, text in zip(labels, histogram.counts, counts, strict=True):
        bar = _bar(count / most, room, shown.unicode)
        line = f"{label:>{width}}  {text:>{count_width}}  "
        click.echo(terminal.styled(line, "dim", shown) + terminal.styled(bar, "good", shown))


def _bar(part: float, room: int, unicode: bool) -> str:
    """Returns a bar of `part` of the room, in eighths of a character; visible if part > 0."""
    if not unicode:
        return "#" * max(round(part * room), part > 0)
    eighths = max(round(part * room * 8), part > 0)
    return _BLOCKS[-1] * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def _values_text(values: Any, full: bool, has_index: bool) -> str:
    if isinstance(values, bytes):
        text = repr(values if full else values[:_MAX_STRING])
        return text if full or len(values) <= _MAX_STRING else f"{text}... ({len(values):,} bytes)"
    array = np.asarray(values)
    threshold = _MAX_VALUES if has_index else _MAX_VALUES_FOR_PEOPLE
    if full:
        threshold = max(array.size, 1)
    return np.array2string(array, max_line_width=terminal.look().width, threshold=threshold)
