# SPDX-License-Identifier: Apache-2.0
"""The command ``ls``: a tree by scope for people, tab-separated lines in a pipe, or JSON."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import click

import tensorbundle
from tensorbundle import slots, terminal
from tensorbundle.cli_options import (
    DIFFERENT,
    OK,
    TensorName,
    checkpoint_argument,
    dtype_text,
    examples,
    json_option,
    select,
)
from tensorbundle.summary import Summary, count_tensors
from tensorbundle.tables import count_text, plural, shape_text, size_text
from tensorbundle.tensor import Tensor
from tensorbundle.tensor_stats import TensorStats, compute_stats, has_stats
from tensorbundle.terminal import Cell, Column

# The kind of error of a tensor with elements that are stored nowhere, or twice.
_PARTLY_STORED = "stored in part"
_CORRUPTED = "corrupted"

# From this width on, a terminal shows the full names of an object graph.
_WIDE = 120

_DIGITS = re.compile(r"([0-9]+)")


class _Item(NamedTuple):
    """A tensor of the list.

    Attributes:
        tensor: The tensor.
        is_slot: Whether it is an optimizer's slot.
        full_name: Its full name in the object graph.
        error: (kind, message) if it cannot be read.
        stats: Its statistics, if they were requested.
    """

    tensor: Tensor
    is_slot: bool
    full_name: str | None
    error: tuple[str, str] | None
    stats: TensorStats | None

    @property
    def name(self) -> str:
        return self.tensor.name

    @property
    def parameters(self) -> int:
        return self.tensor.size if self.tensor.dtype != object else 0


@click.command(
    "ls",
    short_help="List the tensors as a tree with totals.",
    epilog=examples(
        "tensorbundle ls model.ckpt-1000",
        "tensorbundle ls model.ckpt-1000 'encoder/*' --no-slots --sort size",
        "tensorbundle ls model.ckpt-1000 --flat --stats",
    ),
)
@checkpoint_argument
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1, type=TensorName())
@click.option("--flat", is_flag=True, help="List full names instead of a tree of scopes.")
@click.option("--depth", type=click.IntRange(1), metavar="N", help="Show N levels of scopes.")
@click.option(
    "--sort",
    "order",
    type=click.Choice(["name", "size"]),
    default="name",
    help="Sort by name (layer_2 comes before layer_10), or the largest first.",
)
@click.option("--no-slots", is_flag=True, help="Leave the optimizer's slots out.")
@click.option("--long", is_flag=True, help="One line per stored slice: its range, file and offset.")
@click.option(
    "--stats", is_flag=True, help="Read the values: min, max, mean, std, and number of zeros, NaN."
)
@json_option
def ls(
    checkpoint: str,
    patterns: tuple[str, ...],
    flat: bool,
    depth: int | None,
    order: str,
    no_slots: bool,
    long: bool,
    stats: bool,
    as_json: bool,
) -> int:
    """Lists the tensors of a checkpoint.

    CKPT is a prefix, a directory, or one of the checkpoint's files. PATTERN selects tensors by
    name, with *, ? and []; it is also compared with the full names of an object graph.

    On a terminal, the tensors are shown as a tree with totals for each scope. In a pipe, each line
    has the columns name, dtype, shape, bytes, slices and error, separated by tabs; with --stats
    also min, max, mean, std, zeros, nan and inf.

    Exit status: 1 if elements of a tensor are stored nowhere or twice, or if --stats finds
    corrupted values. Missing and damaged data files are reported, but do not change it.
    """
    if long and stats:
        raise click.UsageError("--long and --stats cannot be combined")
    if depth is not None and (flat or long):
        raise click.UsageError("--depth needs the tree: leave --flat and --long out")
    with tensorbundle.open(checkpoint, verify="lazy" if stats else "none") as opened:
        # Lines in a pipe do without slots and full names, which take time in a large checkpoint.
        is_plain = not (as_json or terminal.for_people())
        slot_names: set[str] = set() if is_plain and not no_slots else slots.find_slots(opened)
        full_names: Mapping[str, str] = {} if is_plain else opened._read_full_names().by_key
        names = select(opened, patterns)
        if no_slots:
            names = [name for name in names if name not in slot_names]
        tensors = [opened[name] for name in names]
        items = [
            _Item(tensor, tensor.name in slot_names, full_names.get(tensor.name), error, values)
            for tensor, error, values in _with_stats(tensors, checkpoint if stats else None)
        ]
        items.sort(key=_size_order if order == "size" else _name_order)
        if as_json:
            summary = count_tensors(opened.path, [item.tensor._core for item in items])
            _print_document(checkpoint, items, summary)
        elif is_plain:
            for row in _slice_rows(items) if long else _plain_rows(items, stats):
                terminal.print_line(*row)
        else:
            _print_for_people(items, opened.path, order, flat, depth, long, stats)
            _print_totals(opened, items)
    has_error = any(item.error and item.error[0] in (_PARTLY_STORED, _CORRUPTED) for item in items)
    return DIFFERENT if has_error else OK


def _with_stats(
    tensors: Sequence[Tensor], title: str | None
) -> Iterator[tuple[Tensor, tuple[str, str] | None, TensorStats | None]]:
    """Yields each tensor, its error, and its statistics if there is a title for a progress bar."""
    if title is None:
        for tensor in tensors:
            yield tensor, tensor._core.error(), None
        return
    total = sum(tensor.nbytes for tensor in tensors if has_stats(tensor))
    with terminal.progress(title, "read") as report_progress:
        advance = terminal.adder(report_progress, total)
        for tensor in tensors:
            error = tensor._core.error()
            stats = None
            if error is None and has_stats(tensor):
                try:
                    stats = compute_stats(tensor, advance)
                except tensorbundle.IOFailure as problem:
                    error = "unreadable", str(problem)
                except tensorbundle.Error as problem:
                    error = _CORRUPTED, str(problem)
            yield tensor, error, stats


# --- order


def _natural(text: str) -> tuple[Any, ...]:
    """Returns a sort key by which numbers in a text compare as numbers."""
    parts = _DIGITS.split(text)
    for i in range(1, len(parts), 2):
        digits = parts[i].lstrip("0")
        parts[i] = (len(digits), digits, len(parts[i]))
    return tuple(parts)


def _name_order(item: _Item) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(_natural, item.name.split("/")))


def _size_order(item: _Item) -> tuple[int, tuple[tuple[Any, ...], ...]]:
    return -item.tensor.nbytes, _name_order(item)


# --- in a pipe


def _plain_rows(items: Iterable[_Item], stats: bool) -> Iterator[list[object]]:
    """Yields name, dtype, shape, bytes, slices, error; with `stats` also the statistics."""
    errors = _Errors()
    for item in items:
        tensor = item.tensor
        row: list[object] = [
            item.name,
            dtype_text(tensor),
            shape_text(tensor.shape),
            tensor.nbytes,
            len(tensor._core.slices()),
            errors.describe(item),
        ]
        if stats:
            row += ["" if value is None else value for value in _stats_values(item.stats)]
        yield row


def _stats_values(stats: TensorStats | None) -> list[Any]:
    if stats is None:
        return [None] * 7
    return [stats.min, stats.max, stats.mean, stats.std, stats.zeros, stats.nan, stats.inf]


def _slice_rows(items: Iterable[_Item]) -> Iterator[list[object]]:
    """Yields a row per stored slice, with its ``start:end`` per axis."""
    errors = _Errors()
    for item in items:
        for stored in item.tensor.slices:
            yield [
                item.name,
                dtype_text(item.tensor),
                shape_text(item.tensor.shape),
                bounds_text(stored.offset, stored.shape),
                stored.nbytes,
                stored.file,
                stored.file_offset,
                errors.describe(item),
            ]


def bounds_text(offset: Sequence[int], shape: Sequence[int]) -> str:
    """Returns the box of a slice: ``"[0:10,5:8]"``."""
    axes = zip(offset, shape, strict=True)
    return f"[{','.join(f'{start}:{start + length}' for start, length in axes)}]"


class _Errors:
    """Errors of tensors for a list: the full message of a cause once, then only its kind."""

    def __init__(self) -> None:
        self._listed_causes: set[str] = set()

    def describe(self, item: _Item) -> str:
        if item.error is None:
            return ""
        kind, message = item.error
        # The message of a file's error differs between its tensors only in their names.
        own = kind in (_PARTLY_STORED, _CORRUPTED)
        cause = message if own else message.partition(": ")[2]
        if cause in self._listed_causes:
            return kind
        self._listed_causes.add(cause)
        return message


# --- JSON


def _print_document(checkpoint: str, items: Sequence[_Item], summary: Summary) -> None:
    terminal.print_json(
        {
            "path": checkpoint,
            "summary": {
                "tensors": summary.tensors,
                "parameters": summary.parameters,
                "nbytes": summary.nbytes,
                "slots": dataclasses.asdict(summary.slots),
            },
            "tensors": [_described(item) for item in items],
        }
    )


def _described(item: _Item) -> dict[str, Any]:
    described = describe_tensor(item.tensor)
    described["full_name"] = item.full_name
    described["slot"] = item.is_slot
    described["error"] = None if item.error is None else item.error[1]
    if item.stats is not None:
        described["stats"] = dataclasses.asdict(item.stats)
    return described


def describe_tensor(tensor: Tensor) -> dict[str, Any]:
    """Returns the metadata of a tensor for JSON."""
    return {
        "name": tensor.name,
        "dtype": dtype_text(tensor),
        "shape": list(tensor.shape),
        "nbytes": tensor.nbytes,
        "slices": [
            {**stored._asdict(), "offset": list(stored.offset), "shape": list(stored.shape)}
            for stored in tensor.slices
        ],
    }


# --- for people


@dataclass
class _Scope:
    """A node of the tree: a tensor, a scope of tensors, or both.

    Attributes:
        name: Components of the name, joined by slashes; those of an only child are included.
        item: The tensor of that name.
        children: The nodes below, by component.
        tensors, parameters, nbytes: Totals of the tensor and all nodes below.
    """

    name: str
    item: _Item | None = None
    children: dict[str, _Scope] = field(default_factory=dict)
    tensors: int = 0
    parameters: int = 0
    nbytes: int = 0

    def count(self, parameters: int, nbytes: int) -> None:
        """Adds a tensor to the totals."""
        self.tensors += 1
        self.parameters += parameters
        self.nbytes += nbytes


def _build_tree(items: Iterable[_Item]) -> _Scope:
    """Returns the root of the tree of scopes. Siblings are in the order of their first tensors."""
    root = _Scope("")
    for item in items:
        figures = item.parameters, item.tensor.nbytes
        node = root
        node.count(*figures)
        for part in item.name.split("/"):
            node = node.children.setdefault(part, _Scope(part))
            node.count(*figures)
        node.item = item
    # Join scopes with their only child. A loop, because names may have thousands of components.
    pending = [root]
    while pending:
        node = pending.pop()
        for part, child in node.children.items():
            while child.item is None and len(child.children) == 1:
                (only,) = child.children.values()
                only.name = f"{child.name}/{only.name}"
                child = only
            node.children[part] = child
            pending.append(child)
    return root


def _walk(root: _Scope, order: str, depth: int | None) -> Iterator[tuple[str, str, _Scope, bool]]:
    """Yields (guide, guide of further lines, node, whether its children are omitted)."""
    # A stack of iterators, because names may have thousands of components.
    stack = [(iter(_sorted(root, order)), "", 1)]
    while stack:
        children, indent, level = stack[-1]
        following = next(children, None)
        if following is None:
            stack.pop()
            continue
        node, is_last = following
        is_top = level == 1
        guide = "" if is_top else indent + ("└─ " if is_last else "├─ ")
        below = "" if is_top else indent + ("   " if is_last else "│  ")
        is_cut = depth is not None and level >= depth and bool(node.children)
        further = below + ("│  " if node.children and not is_cut else "   ")
        yield guide, further, node, is_cut
        if node.children and not is_cut:
            stack.append((iter(_sorted(node, order)), below, level + 1))


def _sorted(node: _Scope, order: str) -> list[tuple[_Scope, bool]]:
    """Returns the children of a node, and whether each is the last."""
    children = list(node.children.values())
    if order == "size":
        children.sort(key=lambda child: -child.nbytes)
    return [(child, i == len(children) - 1) for i, child in enumerate(children)]


def _print_for_people(
    items: Sequence[_Item],
    path: str,
    order: str,
    flat: bool,
    depth: int | None,
    long: bool,
    stats: bool,
) -> None:
    if not items:
        return
    if long:
        _print_slices(items, path)
        return
    columns, fields = _figures(items, stats)
    name = Column("name", fold=True)
    if flat:
        rows = [[Cell(item.name, _style(item)), *(show(item) for show in fields)] for item in items]
    else:
        rows = list(_tree_rows(items, order, depth, fields, stats))
    terminal.print_table([name, *columns], rows)


def _figures(items: Sequence[_Item], stats: bool) -> tuple[list[Column], list[Any]]:
    """Returns the columns after the name, and for each the function from an item to its cell."""
    shown: list[tuple[Column, Any]] = [
        (Column("dtype"), lambda item: Cell(dtype_text(item.tensor), _style(item))),
        (Column("shape"), lambda item: Cell(shape_text(item.tensor.shape), _style(item))),
    ]
    if stats:
        for title in ("min", "max", "mean", "std"):
            shown.append((Column(title, right=True), _number_of(title)))
        for title in ("zeros", "nan", "inf"):
            found = [item.stats for item in items if item.stats is not None]
            if any(getattr(each, title) for each in found):
                shown.append((Column(title, right=True), _count_of(title)))
    else:
        shown += [
            (
                Column("parameters", right=True),
                lambda item: Cell(_parameters_text(item), _style(item)),
            ),
            (
                Column("size", right=True),
                lambda item: Cell(size_text(item.tensor.nbytes), _style(item)),
            ),
        ]
        if any(len(item.tensor._core.slices()) > 1 for item in items):
            shown.append((Column("slices", right=True), _slices_of))
    if terminal.look().width >= _WIDE and any(item.full_name for item in items):
        shown.append((Column("full name", fold=True), lambda item: item.full_name or ""))
    if any(item.error for item in items):
        shown.append(
            (Column("error"), lambda item: Cell(item.error[0] if item.error else "", "bad"))
        )
    return [column for column, _ in shown], [show for _, show in shown]


def _parameters_text(item: _Item) -> str:
    return "" if item.tensor.dtype == object else count_text(item.parameters)


def _style(item: _Item) -> str:
    return "bad" if item.error else "dim" if item.is_slot else ""


def _number_of(title: str) -> Any:
    def show(item: _Item) -> Cell:
        value = None if item.stats is None else getattr(item.stats, title)
        return Cell("" if value is None else number_text(value), _style(item))

    return show


def number_text(value: float) -> str:
    """Returns a number with four digits; integers up to six digits are exact."""
    if isinstance(value, int) and abs(value) < 1_000_000:
        return str(value)
    return f"{value:.4g}"


def _count_of(title: str) -> Any:
    def show(item: _Item) -> Cell:
        value = 0 if item.stats is None else getattr(item.stats, title)
        style = "bad" if value and title != "zeros" else _style(item)
        return Cell(count_text(value) if value else "", style)

    return show


def _slices_of(item: _Item) -> Cell:
    count = len(item.tensor._core.slices())
    return Cell(str(count) if count > 1 else "", _style(item))


def _tree_rows(
    items: Sequence[_Item], order: str, depth: int | None, fields: Sequence[Any], stats: bool
) -> Iterator[list[Cell]]:
    root = _build_tree(items)
    empty = Cell("")
    for guide, further, node, is_cut in _walk(root, order, depth):
        if node.item is not None and not is_cut:
            name = Cell(node.name, _style(node.item), guide, further)
            yield [name, *(show(node.item) for show in fields)]
            continue
        name = Cell(f"{node.name}/", "scope", guide, further)
        row = [empty] * len(fields)
        if is_cut:
            row[0] = Cell(plural(node.tensors, "tensor"), "dim")
        if not stats:
            row[2] = Cell(count_text(node.parameters), "scope")
            row[3] = Cell(size_text(node.nbytes), "scope")
        yield [name, *row]


def _print_slices(items: Sequence[_Item], path: str) -> None:
    """Prints a line per stored slice. A file that has all of them is named once, below."""
    files = dict.fromkeys(stored.file for item in items for stored in item.tensor.slices)
    shown: list[tuple[Column, Any]] = [
        (Column("name", fold=True), lambda item, _: Cell(item.name, _style(item))),
        (Column("dtype"), lambda item, _: dtype_text(item.tensor)),
        (Column("slice"), lambda _, stored: bounds_text(stored.offset, stored.shape)),
        (Column("size", right=True), lambda _, stored: size_text(stored.nbytes)),
        (Column("offset", right=True), lambda _, stored: f"{stored.file_offset:,}"),
    ]
    if len(files) > 1:
        # The paths of data files differ only after the prefix.
        file = Column("file", fold=True)
        shown.insert(4, (file, lambda _, stored: stored.file.removeprefix(f"{path}.")))
    if any(item.error for item in items):
        shown.append(
            (Column("error"), lambda item, _: Cell(item.error[0] if item.error else "", "bad"))
        )
    rows = [
        [show(item, stored) for _, show in shown] for item in items for stored in item.tensor.slices
    ]
    terminal.print_table([column for column, _ in shown], rows)
    if len(files) == 1:
        terminal.print_text()
        terminal.print_text(f"all in {next(iter(files))}")


def _print_totals(opened: tensorbundle.Checkpoint, items: Sequence[_Item]) -> None:
    """Prints the line of totals, and each cause of errors once."""
    if items:
        terminal.print_text()
    summary = count_tensors(opened.path, [item.tensor._core for item in items])
    line = summary.line
    if len(items) < len(opened):
        totals = line.partition(", ")[2]
        line = f"{len(items):,} of {plural(len(opened), 'tensor')}, {totals}"
    terminal.print_text(line, "scope")
    errors = _Errors()
    kinds = {item.error[0] for item in items if item.error}
    for item in items:
        text = errors.describe(item)
        if text and text not in kinds:
            terminal.print_text(text, "bad")
