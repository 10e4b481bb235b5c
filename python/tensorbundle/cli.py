# SPDX-License-Identifier: Apache-2.0
"""The command line: `tensorbundle ls`, `verify`, `align` and `plugin`.

Tables and progress bars are for a person at a terminal; into a pipe go tab-separated lines, and
with `--json` one JSON document. Exit status: 0, all is well; 1, damage was found; 2, bad usage or
unreadable input, with one line on stderr that says what.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import io
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

import tensorbundle
from tensorbundle import plugin
from tensorbundle.checkpoint import by_cause, summarized
from tensorbundle.terminal import print_json, print_line, print_rows, progress, shown

if TYPE_CHECKING:
    from tensorbundle import Checkpoint, Tensor

OK = 0
DAMAGED = 1
UNREADABLE = 2
# What a shell reports of a program that an interrupt or a closed pipe ended.
INTERRUPTED = 130
PIPE_CLOSED = 141


def main(args: Sequence[str] | None = None) -> int:
    """Runs the program.

    Args:
        args: The words after the program's name; those of the process by default.

    Returns:
        The exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            # A tensor's name may hold what the terminal's encoding cannot show.
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None or sys.stdout.closed:
        return _complain("standard output is closed")
    with _silent_log():
        status = _status_of(sys.argv[1:] if args is None else args)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _give_up_stdout()
    return status


def _status_of(args: Sequence[str]) -> int:
    """Runs the program; what goes wrong becomes one line on stderr, and a status."""
    try:
        status = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        return PIPE_CLOSED
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:
        return _complain(error.format_message())
    except MemoryError:
        return _complain("there is not enough memory")
    except (tensorbundle.Error, ValueError) as error:
        return _complain(str(error))
    except OSError as error:
        # Errors of the checkpoint's own files are all of tensorbundle's classes.
        named = error.filename is not None
        return _complain(str(error) if named else f"cannot write the output: {error.strerror}")
    except Exception as error:
        return _complain(f"{type(error).__name__}: {error}")
    return status


@contextlib.contextmanager
def _silent_log() -> Iterator[None]:
    """Keeps the library's log off stderr: what the user must know is in the error's one line."""
    logger = logging.getLogger("tensorbundle")
    handler = logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _give_up_stdout() -> None:
    """Leads stdout nowhere, so that the interpreter does not fail to flush it at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _run(args: Sequence[str]) -> int:
    # Not by click's own main: that turns a closed pipe into status 1, which here means damage.
    try:
        with program.make_context("tensorbundle", list(args)) as context:
            status: int = program.invoke(context)
    except click.exceptions.Exit as end:  # --help, --version
        return end.exit_code
    return status


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tensorbundle.__version__, prog_name="tensorbundle")
def program() -> None:
    """Reads TensorFlow checkpoints, without TensorFlow."""


@program.command("ls")
@click.argument("path")
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@click.option("--long", is_flag=True, help="One line per stored slice: its box, file and offset.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def list_tensors(path: str, patterns: tuple[str, ...], long: bool, as_json: bool) -> int:
    """Lists the tensors of a checkpoint.

    PATH is a prefix, a directory, or one of the checkpoint's files. PATTERN selects tensors by
    name, with *, ? and []; the full names of an object graph count as well.

    Exit status 1: elements of some of these tensors are stored nowhere, or twice. Files that are
    missing or damaged are reported, but need not be there for a list.
    """
    with tensorbundle.open(path, verify="none") as checkpoint:
        tensors = [checkpoint[name] for name in _select(checkpoint, patterns)]
        if as_json:
            print_json({"path": path, "tensors": [_describe(tensor) for tensor in tensors]})
        else:
            header, rows = _slices(tensors) if long else _summaries(tensors)
            print_rows(header, rows)
        return DAMAGED if any(map(_is_stored_in_part, tensors)) else OK


@program.command()
@click.argument("path")
@click.option("--names", "patterns", multiple=True, metavar="PATTERN", help="Only these tensors.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def verify(path: str, patterns: tuple[str, ...], as_json: bool) -> int:
    """Compares every byte of a checkpoint with its checksums.

    PATH is a prefix, a directory, or one of the checkpoint's files. --names may be given several
    times.
    """
    with tensorbundle.open(path, verify="none") as checkpoint:
        names = _select(checkpoint, patterns) if patterns else None
        with progress(path, "verify") as report_progress:
            report = checkpoint.verify(names, progress=report_progress)
    if as_json:
        print_json(
            {
                "path": path,
                "ok": report.ok,
                "checked_bytes": report.checked_bytes,
                "damaged": [dataclasses.asdict(item) for item in report.damaged],
                "unreadable": [dataclasses.asdict(item) for item in report.unreadable],
                "warnings": list(report.warnings),
            }
        )
    else:
        for kind, findings in (("damaged", report.damaged), ("unreadable", report.unreadable)):
            for text, group in by_cause(findings).items():
                # What many tensors share is said once, and before them.
                shared = len(group) > 1
                if shared:
                    print_line("cause", group[0].file, text)
                for item in group:
                    message = "see the cause above" if shared else item.message
                    print_line(kind, item.tensor, item.file, item.offset, item.nbytes, message)
        for warning in report.warnings:
            print_line("warning", warning)
        counts = [
            f"{len(findings)} {kind}"
            for kind, findings in (("damaged", report.damaged), ("unreadable", report.unreadable))
            if findings
        ]
        click.echo(f"{', '.join(counts) or 'ok'}: {report.checked_bytes} bytes checked")
    if report.damaged or report.ok:
        return DAMAGED if report.damaged else OK
    return _complain("; ".join(summarized(report.unreadable)))


@program.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DEST")
@click.option(
    "--alignment",
    type=int,
    default=4096,
    show_default=True,
    metavar="N",
    help="Tensors of 1 MB or more begin at a multiple of this power of two.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def align(source: str, destination: str, alignment: int, as_json: bool) -> int:
    """Writes a checkpoint anew, so that its tensors can be mapped.

    SRC is a prefix, a directory, or one of the checkpoint's files. DEST is the new prefix; a
    directory takes SRC's own name inside it. Nothing is replaced; every checksum is verified.
    """
    with tensorbundle.open(source, verify="none"):
        pass  # what cannot be opened is no damage, but unreadable
    try:
        with progress(source, "align") as report_progress:
            report = tensorbundle.align(
                source, destination, alignment=alignment, progress=report_progress
            )
    except tensorbundle.CorruptionError as error:
        _complain(str(error))
        return DAMAGED
    except ValueError as error:  # the alignment, or the destination
        raise click.UsageError(str(error)) from None
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        click.echo(
            f"{shown(report.path)}: {report.moved} of {report.slices} stored slices moved, "
            f"{report.bytes_after} bytes (before: {report.bytes_before})"
        )
    return OK


@program.group("plugin", no_args_is_help=False)
def plugin_group() -> None:
    """The link by which `import tensorflow` loads the ops by itself.

    For parameter servers whose scripts cannot be changed. It concerns the TensorFlow of the Python
    that runs this program.
    """


@plugin_group.command("enable")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def enable_plugin(as_json: bool) -> int:
    """Makes the link, or mends a stale one."""
    return _report_plugin(plugin.enable(), as_json)


@plugin_group.command("disable")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def disable_plugin(as_json: bool) -> int:
    """Removes the link."""
    return _report_plugin(plugin.disable(), as_json)


@plugin_group.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def plugin_status(as_json: bool) -> int:
    """Tells whether there is a link, and where it leads.

    Exit status 1: the link is stale, or a file that is no link is in its place.
    """
    return _report_plugin(plugin.status(), as_json)


def _report_plugin(now: plugin.Status, as_json: bool) -> int:
    places = {"library": now.library, "link": now.link, "target": now.target}
    texts = {name: None if place is None else str(place) for name, place in places.items()}
    if as_json:
        print_json({"state": now.state, **texts})
    else:
        click.echo(now.state)
        for name, text in texts.items():
            print_line(name, "none" if text is None else text)
    return DAMAGED if now.state in ("stale", "foreign") else OK


def _select(checkpoint: Checkpoint, patterns: Iterable[str]) -> list[str]:
    """The names that match any of the patterns, or all; a pattern that matches none is an error."""
    chosen: set[str] = set()
    for pattern in patterns:
        # An exact name first: names may have brackets of their own.
        exact = checkpoint.get(pattern)
        chosen.update(_matches(checkpoint, pattern) if exact is None else [exact.name])
    return [name for name in checkpoint if name in chosen] if patterns else list(checkpoint)


def _matches(checkpoint: Checkpoint, pattern: str) -> list[str]:
    """The keys of the tensors with a key or a full name like `pattern`."""
    if not any(character in pattern for character in "*?["):
        return [checkpoint[pattern].name]  # which says what is near it
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
        raise click.UsageError(f"{pattern!r} is not a pattern: {error}") from None
    if not found:
        raise click.UsageError(f"no tensor has a name like {pattern!r}{missing}")
    return found


def _describe(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": _dtype(tensor),
        "shape": list(tensor.shape),
        "nbytes": tensor.nbytes,
        "slices": [
            {**stored._asdict(), "offset": list(stored.offset), "shape": list(stored.shape)}
            for stored in tensor.slices
        ],
        "error": tensor.error,
    }


def _dtype(tensor: Tensor) -> str:
    return str(tensor.stored_dtype or tensor.dtype)


def _summaries(tensors: Iterable[Tensor]) -> tuple[list[str], list[list[str]]]:
    """One row per tensor."""
    errors = _Errors()
    rows = [
        [
            tensor.name,
            _dtype(tensor),
            _shape(tensor),
            str(tensor.nbytes),
            str(len(tensor.slices)),
            errors.of(tensor),
        ]
        for tensor in tensors
    ]
    return ["name", "dtype", "shape", "bytes", "slices", "error"], rows


def _slices(tensors: Iterable[Tensor]) -> tuple[list[str], list[list[str]]]:
    """One row per stored slice, with its ``start:end`` per axis."""
    rows = []
    errors = _Errors()
    for tensor in tensors:
        for stored in tensor.slices:
            axes = zip(stored.offset, stored.shape, strict=True)
            box = ",".join(f"{start}:{start + length}" for start, length in axes)
            row = [tensor.name, _dtype(tensor), _shape(tensor), f"[{box}]", str(stored.nbytes)]
            rows.append([*row, stored.file, str(stored.file_offset), errors.of(tensor)])
    return ["name", "dtype", "shape", "slice", "bytes", "file", "offset", "error"], rows


_IN_PART = "stored in part"


def _is_stored_in_part(tensor: Tensor) -> bool:
    found = tensor._core.error()
    return found is not None and found[0] == _IN_PART


class _Errors:
    """Why tensors cannot be read, for a list: what many share is said once, then in two words."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def of(self, tensor: Tensor) -> str:
        found = tensor._core.error()
        if found is None:
            return ""
        kind, message = found
        # What is wrong with a file is the same for all of its tensors, but for their names.
        cause = message if kind == _IN_PART else message.partition(": ")[2]
        if cause in self._said:
            return kind
        self._said.add(cause)
        return message


def _shape(tensor: Tensor) -> str:
    return f"[{','.join(map(str, tensor.shape))}]"


def _complain(message: str) -> int:
    """Says what went wrong, in one line."""
    with contextlib.suppress(OSError, ValueError):  # stderr may be closed
        click.echo(f"tensorbundle: {shown(' '.join(message.split()))}", err=True)
    return UNREADABLE
