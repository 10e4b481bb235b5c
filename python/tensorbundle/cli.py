# SPDX-License-Identifier: Apache-2.0
"""The command-line program: `tensorbundle ls`, `verify`, `align` and `plugin`.

The output is a table on a terminal, tab-separated lines elsewhere, and one JSON document with
`--json`. Exit status: 0, success; 1, corruption was found; 2, bad usage or unreadable input, with a
one-line error on stderr.
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
from tensorbundle.checkpoint import group_by_cause, summarize
from tensorbundle.terminal import escape_text, print_json, print_line, print_rows, progress

if TYPE_CHECKING:
    from tensorbundle import Checkpoint, Tensor

OK = 0
DAMAGED = 1
UNREADABLE = 2
# The exit statuses that shells report for a program killed by SIGINT or SIGPIPE.
INTERRUPTED = 130
PIPE_CLOSED = 141

# The kind of error of a tensor with elements that are stored nowhere, or twice.
_PARTLY_STORED = "stored in part"


def main(args: Sequence[str] | None = None) -> int:
    """Runs the program.

    Args:
        args: The arguments after the program's name; default: those of the process.

    Returns:
        The exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            # The terminal's encoding may lack characters of a tensor's name.
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None or sys.stdout.closed:
        return _print_error("standard output is closed")
    with _suppress_log():
        status = _run_to_status(sys.argv[1:] if args is None else args)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _discard_stdout()
    return status


def _run_to_status(args: Sequence[str]) -> int:
    """Runs the program, and turns exceptions into one line on stderr and an exit status."""
    try:
        status = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        return PIPE_CLOSED
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:
        return _print_error(error.format_message())
    except MemoryError:
        return _print_error("there is not enough memory")
    except (tensorbundle.Error, ValueError) as error:
        return _print_error(str(error))
    except OSError as error:
        # Errors of the checkpoint's files are tensorbundle.Error. An OSError without a file name
        # comes from stdout.
        has_name = error.filename is not None
        return _print_error(
            str(error) if has_name else f"cannot write the output: {error.strerror}"
        )
    except Exception as error:
        return _print_error(f"{type(error).__name__}: {error}")
    return status


@contextlib.contextmanager
def _suppress_log() -> Iterator[None]:
    """Suppresses the library's log messages on stderr."""
    logger = logging.getLogger("tensorbundle")
    handler = logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _discard_stdout() -> None:
    """Redirects stdout to /dev/null, because the interpreter flushes it again at exit."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _run(args: Sequence[str]) -> int:
    # click's own main() returns 1 for a closed pipe, which is the status for corruption here.
    try:
        with program.make_context("tensorbundle", list(args)) as context:
            status: int = program.invoke(context)
    except click.exceptions.Exit as end:  # --help, --version
        return end.exit_code
    return status


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tensorbundle.__version__, prog_name="tensorbundle")
def program() -> None:
    """Reads TensorFlow checkpoints without TensorFlow."""


@program.command("ls")
@click.argument("path")
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@click.option("--long", is_flag=True, help="One line per stored slice: its range, file and offset.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_tensors(path: str, patterns: tuple[str, ...], long: bool, as_json: bool) -> int:
    """Lists the tensors of a checkpoint.

    PATH is a prefix, a directory, or one of the checkpoint's files. PATTERN selects tensors by
    name, with *, ? and []; it is also matched with the full names of an object graph.

    Exit status 1: elements of a listed tensor are stored nowhere, or twice. Missing and corrupted
    data files are reported, but do not change the exit status.
    """
    with tensorbundle.open(path, verify="none") as checkpoint:
        tensors = [checkpoint[name] for name in _select(checkpoint, patterns)]
        if as_json:
            print_json({"path": path, "tensors": [_describe(tensor) for tensor in tensors]})
        else:
            header, rows = _slices(tensors) if long else _summaries(tensors)
            print_rows(header, rows)
        return DAMAGED if any(map(_is_partly_stored, tensors)) else OK


@program.command()
@click.argument("path")
@click.option(
    "--names", "patterns", multiple=True, metavar="PATTERN", help="Verify only these tensors."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify(path: str, patterns: tuple[str, ...], as_json: bool) -> int:
    """Compares every byte of a checkpoint with its checksums.

    PATH is a prefix, a directory, or one of the checkpoint's files. --names can be repeated.
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
            for text, group in group_by_cause(findings).items():
                # The cause of several findings is printed once, before them.
                shared = len(group) > 1
                if shared:
                    print_line("cause", group[0].file, text)
                for item in group:
                    message = "same cause as above" if shared else item.message
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
    return _print_error("; ".join(summarize(report.unreadable)))


@program.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DEST")
@click.option(
    "--alignment",
    type=int,
    default=4096,
    show_default=True,
    metavar="N",
    help="Start tensors of 1 MB or more at a multiple of N bytes, a power of two.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def align(source: str, destination: str, alignment: int, as_json: bool) -> int:
    """Rewrites a checkpoint so that its tensors can be mapped.

    SRC is a prefix, a directory, or one of the checkpoint's files. DEST is the new prefix; for a
    directory, SRC's base name is appended. No file is replaced; every checksum is verified.
    """
    with tensorbundle.open(source, verify="none"):
        pass  # an error of the index means unreadable input, not corruption (exit status 2)
    try:
        with progress(source, "align") as report_progress:
            report = tensorbundle.align(
                source, destination, alignment=alignment, progress=report_progress
            )
    except tensorbundle.CorruptionError as error:
        _print_error(str(error))
        return DAMAGED
    except ValueError as error:  # invalid alignment or destination
        raise click.UsageError(str(error)) from None
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        click.echo(
            f"{escape_text(report.path)}: {report.moved} of {report.slices} stored slices moved, "
            f"{report.bytes_after} bytes (before: {report.bytes_before})"
        )
    return OK


@program.group("plugin", no_args_is_help=False)
def plugin_group() -> None:
    """Manages the link that makes `import tensorflow` load tensorbundle.

    For scripts that cannot be changed: their restores are served by tensorbundle, and parameter
    servers have its ops. The commands use the TensorFlow of the Python that runs this program.
    """


@plugin_group.command("enable")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def enable_plugin(as_json: bool) -> int:
    """Creates the link, or replaces a stale one."""
    return _report_plugin(plugin.enable(), as_json)


@plugin_group.command("disable")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def disable_plugin(as_json: bool) -> int:
    """Removes the link."""
    return _report_plugin(plugin.disable(), as_json)


@plugin_group.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def plugin_status(as_json: bool) -> int:
    """Prints the state of the link, its target, and the ops of TensorFlow that are served.

    Exit status 1: the link is stale, or there is a file in its place that is not a link.
    """
    return _report_plugin(plugin.status(), as_json)


def _report_plugin(status: plugin.Status, as_json: bool) -> int:
    paths = {"library": status.library, "link": status.link, "target": status.target}
    texts = {name: None if path is None else str(path) for name, path in paths.items()}
    if as_json:
        print_json({"state": status.state, **texts, "serves": status.serves})
    else:
        click.echo(status.state)
        for name, text in texts.items():
            print_line(name, "none" if text is None else text)
        print_line("serves", ", ".join(status.serves) or "none")
    return DAMAGED if status.state in ("stale", "foreign") else OK


def _select(checkpoint: Checkpoint, patterns: Iterable[str]) -> list[str]:
    """Returns the names that match any of the patterns; without patterns, all names.

    Raises:
        click.UsageError: A pattern matches no name.
    """
    selected: set[str] = set()
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
        raise click.UsageError(f"{pattern!r} is not a pattern: {error}") from None
    if not found:
        raise click.UsageError(f"no tensor has a name that matches {pattern!r}{missing}")
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
    """Returns the header, and one row per tensor."""
    errors = _Errors()
    rows = [
        [
            tensor.name,
            _dtype(tensor),
            _shape(tensor),
            str(tensor.nbytes),
            str(len(tensor.slices)),
            errors.describe(tensor),
        ]
        for tensor in tensors
    ]
    return ["name", "dtype", "shape", "bytes", "slices", "error"], rows


def _slices(tensors: Iterable[Tensor]) -> tuple[list[str], list[list[str]]]:
    """Returns the header, and one row per stored slice with its ``start:end`` per axis."""
    rows = []
    errors = _Errors()
    for tensor in tensors:
        for stored in tensor.slices:
            axes = zip(stored.offset, stored.shape, strict=True)
            bounds = ",".join(f"{start}:{start + length}" for start, length in axes)
            row = [tensor.name, _dtype(tensor), _shape(tensor), f"[{bounds}]", str(stored.nbytes)]
            rows.append([*row, stored.file, str(stored.file_offset), errors.describe(tensor)])
    return ["name", "dtype", "shape", "slice", "bytes", "file", "offset", "error"], rows


def _is_partly_stored(tensor: Tensor) -> bool:
    error = tensor._core.error()
    return error is not None and error[0] == _PARTLY_STORED


class _Errors:
    """Errors of tensors for a list: the full message of a cause once, then only its kind."""

    def __init__(self) -> None:
        self._listed_causes: set[str] = set()

    def describe(self, tensor: Tensor) -> str:
        error = tensor._core.error()
        if error is None:
            return ""
        kind, message = error
        # The message of a file's error differs between its tensors only in their names.
        cause = message if kind == _PARTLY_STORED else message.partition(": ")[2]
        if cause in self._listed_causes:
            return kind
        self._listed_causes.add(cause)
        return message


def _shape(tensor: Tensor) -> str:
    return f"[{','.join(map(str, tensor.shape))}]"


def _print_error(message: str) -> int:
    """Prints an error as one line on stderr, and returns the exit status."""
    with contextlib.suppress(OSError, ValueError):  # stderr may be closed
        click.echo(f"tensorbundle: {escape_text(' '.join(message.split()))}", err=True)
    return UNREADABLE
