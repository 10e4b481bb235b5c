# SPDX-License-Identifier: Apache-2.0
"""Arguments that several commands of the command-line program share, and their completion."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

import tensorbundle
from tensorbundle.filenames import INDEX_SUFFIX
from tensorbundle.tensor import Tensor
from tensorbundle.terminal import print_error

if TYPE_CHECKING:
    from tensorbundle import Checkpoint

OK = 0
DIFFERENT = 1  # also: damaged
UNREADABLE = 2

# More names than that are completed one scope at a time.
_MAX_COMPLETIONS = 200

# Files beside an index that are no paths of checkpoints: data files, graphs, and the state file.
_NO_CHECKPOINT = re.compile(r".*\.data-\d{5,}-of-\d{5,}|.*\.meta|checkpoint", re.DOTALL)

Command = TypeVar("Command", bound=Callable[..., Any])

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace the destination if it exists."
)
shards_option = click.option(
    "--shards", type=click.IntRange(1), default=1, metavar="N", help="Write N data files."
)


class FilePath(click.ParamType):  # type: ignore[type-arg]
    """A path. The shell completes names of files."""

    name = "path"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Lets the shell complete the path."""
        del ctx, param
        return [CompletionItem(incomplete, type="file")]


class CheckpointPath(click.ParamType):  # type: ignore[type-arg]
    """A path of a checkpoint. The shell completes directories, prefixes and other files."""

    name = "path"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Completes prefixes, and lets the shell complete directories."""
        del ctx, param
        directory, start = os.path.split(incomplete)
        try:
            entries = list(os.scandir(os.path.expanduser(os.path.expandvars(directory)) or "."))
        except OSError:
            entries = []
        found = set()
        for entry in entries:
            if entry.is_dir() or not entry.name.isprintable():
                continue
            prefix = entry.name.removesuffix(INDEX_SUFFIX)
            hidden = prefix.startswith(".") and not start.startswith(".")
            if prefix.startswith(start) and not hidden and not _NO_CHECKPOINT.fullmatch(prefix):
                found.add(os.path.join(directory, prefix))
        return [
            CompletionItem(incomplete, type="dir"),
            *(CompletionItem(path) for path in sorted(found)),
        ]


class TensorName(click.ParamType):  # type: ignore[type-arg]
    """The name of a tensor, or a pattern, of the checkpoint in another argument."""

    name = "name"

    def __init__(self, source: str = "checkpoint") -> None:
        self._source = source

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Completes keys and full names of the checkpoint."""
        del param
        # While an option lacks its value, click has not assigned the arguments yet.
        path = ctx.params.get(self._source) or next(iter(ctx.args), None)
        if not isinstance(path, str):
            return []
        try:
            with tensorbundle.open(os.path.expandvars(path), verify="none") as checkpoint:
                names = [*checkpoint, *checkpoint._read_full_names().keys]
        except (tensorbundle.Error, OSError, ValueError):
            return []
        return [CompletionItem(name) for name in complete(incomplete, names)]


def complete(incomplete: str, names: Iterable[str]) -> list[str]:
    """Returns the names that begin with a text; if there are many, only their next scopes."""
    found = sorted({name for name in names if name.startswith(incomplete) and name.isprintable()})
    end = len(incomplete)
    while len(found) > _MAX_COMPLETIONS:
        scopes = dict.fromkeys(_up_to_slash(name, end) for name in found)
        if len(scopes) > 1:
            return list(scopes)
        end = len(next(iter(scopes)))
    return found


def _up_to_slash(name: str, start: int) -> str:
    slash = name.find("/", start)
    return name if slash < 0 else name[: slash + 1]


def examples(*lines: str) -> str:
    """Returns the end of a command's help."""
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


checkpoint_argument = click.argument("checkpoint", metavar="CKPT", type=CheckpointPath())
source_argument = click.argument("source", metavar="SRC", type=CheckpointPath())
destination_argument = click.argument("destination", metavar="DST", type=FilePath())


class Pair(click.ParamType):  # type: ignore[type-arg]
    """``LEFT=RIGHT``, cut at the last ``=``, because regular expressions may contain some."""

    name = "pair"

    def __init__(self, metavar: str, example: str) -> None:
        self._metavar = metavar
        self._example = example

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Cuts the value in two."""
        if isinstance(value, tuple):
            return value[0], value[1]
        left, found, right = str(value).rpartition("=")
        if not found or not left:
            self.fail(f"{value!r} is not {self._metavar}, as in {self._example}", param, ctx)
        return left, right


def rename_option(text: str) -> Callable[[Command], Command]:
    """Returns the option ``--rename``, which can be repeated."""
    return click.option(
        "--rename",
        "renames",
        multiple=True,
        type=Pair("RE=REPL", "'^bert/=encoder/'"),
        metavar="RE=REPL",
        help=text,
    )


_EDIT_OPTIONS = (
    click.option(
        "--keep",
        multiple=True,
        metavar="PATTERN",
        type=TensorName("source"),
        help="Keep only these tensors. Can be repeated.",
    ),
    click.option(
        "--drop",
        multiple=True,
        metavar="PATTERN",
        type=TensorName("source"),
        help="Leave these tensors out. Can be repeated.",
    ),
    click.option("--no-slots", is_flag=True, help="Leave the optimizer's slots out."),
    rename_option(
        "Replace every match of a regular expression in the names; \\1 is the first group. Can be "
        "repeated: the options apply one after the other."
    ),
    click.option(
        "--rules",
        type=FilePath(),
        metavar="FILE",
        help="Apply the rules of a TOML file: names, transposes, casts.",
    ),
    click.option(
        "--cast",
        "casts",
        multiple=True,
        metavar="FROM=TO",
        help="Convert one type, or the tensors of a pattern, to another type: float32=bfloat16, "
        "'emb/*=float16'. Can be repeated.",
    ),
    click.option(
        "--transpose",
        "transposes",
        multiple=True,
        metavar="PATTERN",
        help="Reverse the axes of these tensors; PATTERN=3,2,0,1 permutes them. Can be repeated.",
    ),
    click.option(
        "--partition",
        "partitions",
        multiple=True,
        type=Pair("NAME=N", "emb=8"),
        metavar="NAME=N",
        help="Store a tensor in N slices along axis 0. Can be repeated.",
    ),
    click.option("--merge", is_flag=True, help="Store every tensor in one slice."),
    click.option(
        "--flatten",
        is_flag=True,
        help="Write the full names of an object graph, and no graph.",
    ),
    click.option(
        "--strict",
        is_flag=True,
        help="Fail with exit status 1, and write nothing, if an option matches nothing or "
        "something cannot be written.",
    ),
    click.option("--dry-run", is_flag=True, help="Show what would be done, and write nothing."),
    overwrite_option,
)


def edit_options(command: Command) -> Command:
    """Adds the options that ``edit`` and ``convert`` share."""
    for option in reversed(_EDIT_OPTIONS):
        command = option(command)
    return command


@dataclasses.dataclass(frozen=True)
class EditOptions:
    """The values of the options that ``edit`` and ``convert`` share."""

    keep: tuple[str, ...]
    drop: tuple[str, ...]
    no_slots: bool
    renames: tuple[tuple[str, str], ...]
    rules: str | None
    casts: tuple[str, ...]
    transposes: tuple[str, ...]
    partitions: tuple[tuple[str, str], ...]
    merge: bool
    flatten: bool
    strict: bool
    dry_run: bool
    overwrite: bool

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of ``tensorbundle.edit``.

        Raises:
            click.UsageError: An option has no valid form.
        """
        return {
            "keep": list(self.keep) or None,
            "drop": list(self.drop) or None,
            "slots": not self.no_slots,
            "rename": list(self.renames) or None,
            "rules": self.rules,
            "cast": _casts(self.casts),
            "transpose": dict(map(_transpose, self.transposes)) or None,
            "partition": dict(map(_partition, self.partitions)) or None,
            "merge": self.merge,
            "flatten": self.flatten,
        }


def _casts(texts: tuple[str, ...]) -> dict[str, str] | str | None:
    """Returns the argument `cast`: a mapping, or the new type of all float types."""
    if len(texts) == 1 and "=" not in texts[0]:
        return texts[0]
    parse = Pair("FROM=TO", "float32=bfloat16").convert
    return dict(parse(text, None, None) for text in texts) or None


def _transpose(text: str) -> tuple[str, bool | tuple[int, ...]]:
    name, found, axes = text.rpartition("=")
    if not found:
        return text, True
    try:
        return name, tuple(int(axis) for axis in axes.split(","))
    except ValueError:
        raise click.UsageError(
            f"--transpose: {axes!r} is not a permutation such as 3,2,0,1"
        ) from None


def _partition(pair: tuple[str, str]) -> tuple[str, int]:
    name, count = pair
    if not count.isdecimal() or int(count[:9]) < 1:
        raise click.UsageError(f"--partition: {count!r} is not a number of slices, at least 1")
    return name, int(count[:9])


def select(checkpoint: Checkpoint, patterns: Iterable[str]) -> list[str]:
    """Returns the names that match any of the patterns; without patterns, all names.

    Raises:
        TensorNotFoundError: The checkpoint does not have a name without wildcards.
        ValueError: A pattern is invalid, or matches no name.
    """
    selected: set[str] = set()
    patterns = list(patterns)
    for pattern in patterns:
        # Try the exact name first, because names may contain brackets.
        exact = checkpoint.get(pattern)
        selected.update(_matches(checkpoint, pattern) if exact is None else [exact.name])
    return [name for name in checkpoint if name in selected] if patterns else list(checkpoint)


def _matches(checkpoint: Checkpoint, pattern: str) -> list[str]:
    """Returns the keys of the tensors whose key or full name matches a pattern."""
    if not any(character in pattern for character in "*?["):
        return [checkpoint[pattern].name]  # raises an error that lists the nearest names
    missing = ""
    full_names: Mapping[str, str] = {}
    try:
        full_names = checkpoint.full_names
    except tensorbundle.Error as error:
        missing = f"; full names may be missing: {error}"
    try:
        found = fnmatch.filter(checkpoint, pattern)
        found += [key for key, name in full_names.items() if fnmatch.fnmatchcase(name, pattern)]
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a pattern: {error}") from None
    if not found:
        raise ValueError(f"no tensor has a name that matches {pattern!r}{missing}")
    return found


def dtype_text(tensor: Tensor) -> str:
    """Returns the stored type of a tensor: ``"float32"``."""
    return str(tensor.stored_dtype or tensor.dtype)


def damaged(error: Exception) -> int:
    """Prints an error about damaged input, and returns the exit status."""
    print_error(str(error))
    return DIFFERENT
