# SPDX-License-Identifier: Apache-2.0
"""The commands ``edit``, ``convert``, ``average`` and ``align``, which write new files."""

from __future__ import annotations

import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

import tensorbundle
from tensorbundle import conversion, terminal
from tensorbundle.cli_options import (
    DIFFERENT,
    OK,
    CheckpointPath,
    EditOptions,
    FilePath,
    damaged,
    destination_argument,
    edit_options,
    examples,
    json_option,
    overwrite_option,
    shards_option,
    source_argument,
)
from tensorbundle.conversion import ConvertReport
from tensorbundle.edit_plan import EditWarning
from tensorbundle.editing import EditReport
from tensorbundle.errors import LeftOutError
from tensorbundle.tables import plural, size_text
from tensorbundle.terminal import Column

alignment_option = click.option(
    "--alignment",
    type=int,
    default=64,
    show_default=True,
    metavar="N",
    help="Start every tensor at a multiple of N bytes, a power of two; 1 as TensorFlow does.",
)


@click.command(
    "edit",
    short_help="Write a changed copy: other names and types.",
    epilog=examples(
        "tensorbundle edit model.ckpt-1000 small --no-slots --cast float32=bfloat16",
        "tensorbundle edit model.ckpt-1000 renamed --rename '^bert/=encoder/' --dry-run",
        "tensorbundle edit model.ckpt-1000 sharded --partition embedding=8 --shards 8",
    ),
)
@source_argument
@destination_argument
@edit_options
@shards_option
@alignment_option
@json_option
def edit(
    source: str, destination: str, shards: int, alignment: int, as_json: bool, **shared: Any
) -> int:
    """Writes a changed copy of a checkpoint: other names, types, slices, fewer tensors.

    SRC is a prefix, a directory, or one of the checkpoint's files. DST is the new prefix; for a
    directory, SRC's base name is appended. PATTERN and NAME are names of SRC, with *, ? and [].
    Every byte is compared with its checksum, and nothing is held in memory as a whole.

    Exit status: 1 if SRC is damaged; with --strict, also if an option matches nothing.
    """
    options = EditOptions(**shared)
    arguments = {
        **options.arguments(),
        "shards": shards,
        "alignment": alignment,
        "overwrite": options.overwrite,
    }

    check_index(source)

    def work(dry_run: bool, progress: Any) -> Any:
        return tensorbundle.edit(
            source, destination, **arguments, dry_run=dry_run, progress=progress
        )

    return _write("edit", source, work, _edit_summary, options, as_json)


def _edit_summary(report: EditReport) -> str:
    counts = [f"{plural(len(report.kept), 'tensor')} kept", f"{len(report.dropped):,} dropped"]
    counts += [f"{len(report.renamed):,} renamed", f"{len(report.cast):,} cast"]
    sizes = f"{size_text(report.bytes_before)} -> {size_text(report.bytes_after)}"
    return f"{report.path}: {', '.join(counts)}; {sizes}"


def check_index(path: str) -> None:
    """Raises the error of a checkpoint that cannot be opened.

    It means unreadable input (exit status 2), unlike corrupted values (exit status 1).
    """
    with tensorbundle.open(path, verify="none"):
        pass


def _write(
    task: str,
    source: str,
    work: Callable[[bool, Any], Any],
    summarize: Callable[[Any], str],
    options: EditOptions,
    as_json: bool,
) -> int:
    """Runs `edit` or `convert`, and prints the report. Returns the exit status.

    Args:
        task: The name of the command.
        source: The path of the source.
        work: Does it, given whether nothing is written, and the callback for progress.
        summarize: Returns the summary of the report for people.
        options: The options of the command.
        as_json: Whether to print JSON.
    """
    start = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EditWarning)  # the report has them
        try:
            # With --strict, a warning must come before the first byte is written.
            planned = options.dry_run or options.strict
            report: Any = work(True, None) if planned else None
            fails = options.strict and bool(report.warnings)
            if not (options.dry_run or fails):
                with terminal.progress(source, task) as report_progress:
                    report = work(False, report_progress)
        except (tensorbundle.CorruptionError, LeftOutError) as error:
            return damaged(error)
    if len(report.warnings) > 1:
        terminal.print_error(f"{len(report.warnings)} warnings:")
    for text in report.warnings:
        terminal.print_error(text if fails else f"warning: {text}")
    if fails:
        return DIFFERENT
    if as_json:
        terminal.print_json({"dry_run": options.dry_run, **report_document(report)})
        return OK
    _print_summary(report, summarize, time.monotonic() - start)
    left_out = getattr(report, "left_out", {})
    rows = [("left out", name, reason) for name, reason in left_out.items()]
    if options.dry_run:
        rows += _changes(report)
    _print_rows(rows)
    if options.dry_run and terminal.for_people():
        terminal.print_text("dry run: nothing was written", "scope")
    return OK


def _changes(report: Any) -> list[tuple[str, str, str]]:
    """Returns what an edit changes, a row for each."""
    rows = [("dropped", name, "") for name in report.dropped]
    rows += [("renamed", old, new) for old, new in report.renamed.items()]
    rows += [("cast", name, " -> ".join(types)) for name, types in report.cast.items()]
    return rows


def _print_rows(rows: Sequence[tuple[str, str, str]]) -> None:
    if terminal.for_people():
        if rows:
            columns = [Column(""), Column("tensor", fold=True), Column("", fold=True)]
            terminal.print_text()
            terminal.print_table(columns, rows)
            terminal.print_text()
    else:
        for row in rows:
            terminal.print_line(*row)


def report_document(report: Any) -> dict[str, Any]:
    """Returns the attributes of a report in types that JSON has."""
    return {
        item.name: _plain(getattr(report, item.name))
        for item in dataclasses.fields(report)
        if not item.name.startswith("_")
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(item) for item in value]
    return value


def _print_summary(report: Any, summarize: Callable[[Any], str], seconds: float) -> None:
    """Prints a line: with the time for people, the first line of the report elsewhere."""
    if terminal.for_people():
        took = f", {seconds:.1f} s" if seconds >= 0.05 else ""
        terminal.print_text(f"{summarize(report)}{took}")
    else:
        terminal.print_text(str(report).partition("\n")[0])


@click.command(
    "convert",
    short_help="Convert to and from safetensors and other formats.",
    epilog=examples(
        "tensorbundle convert bert_model.ckpt bert.safetensors --rules bert_to_pytorch.toml",
        "tensorbundle convert model.ckpt-1000 model.npz --no-slots",
        "tensorbundle convert model.safetensors model.ckpt",
    ),
)
@source_argument
@destination_argument
@click.option(
    "--to",
    "target",
    type=click.Choice(["safetensors", "npz", "hdf5", "parquet", "checkpoint"]),
    help="The format, if the suffix of DST does not select it.",
)
@click.option(
    "--max-bytes",
    metavar="SIZE",
    help="Split a safetensors file: at most that many bytes each, such as 5GB.",
)
@click.option("--name", metavar="NAME", help="For Parquet: the table to convert.")
@click.option(
    "--vocab", type=FilePath(), metavar="FILE", help="For Parquet: the tokens of the table's rows."
)
@edit_options
@shards_option
@json_option
def convert(
    source: str,
    destination: str,
    target: str | None,
    max_bytes: str | None,
    name: str | None,
    vocab: str | None,
    shards: int,
    as_json: bool,
    **shared: Any,
) -> int:
    """Converts a checkpoint to another format, or another format to a checkpoint.

    SRC is a checkpoint, or a .safetensors, .safetensors.index.json, .npz, .h5 or .hdf5 file. The
    suffix of DST selects the format: .safetensors, .npz, .h5, .hdf5, .parquet; any other is the
    prefix of a checkpoint. What the format cannot store (strings, the object graph) is listed as
    left out.

    Exit status: 1 if SRC is damaged; with --strict, also if something would be left out.
    """
    options = EditOptions(**shared)
    arguments = {
        **options.arguments(),
        "to": target,
        "max_bytes": None if max_bytes is None else parse_size(max_bytes),
        "name": name,
        "vocab": vocab,
        "shards": shards,
        "strict": options.strict,
        "overwrite": options.overwrite,
    }

    if conversion._source_format(source) == "checkpoint":
        check_index(source)

    def work(dry_run: bool, progress: Any) -> Any:
        return tensorbundle.convert(
            source, destination, **arguments, dry_run=dry_run, progress=progress
        )

    return _write("convert", source, work, _convert_summary, options, as_json)


def _convert_summary(report: ConvertReport) -> str:
    count, size = plural(report.tensors, "tensor"), size_text(report.nbytes)
    files = f" in {len(report.files)} files" if len(report.files) > 1 else ""
    return f"{report.path}: {count} as {report.format}{files}, {size}"


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {f"{unit}i": 1 << (10 * i) for i, unit in enumerate(_UNITS) if unit}


def parse_size(text: str) -> int:
    """Returns a number of bytes: ``"5GB"``, ``"512MiB"``, ``"1000000"``.

    Raises:
        click.UsageError: The text is not a size.
    """
    number = text.strip().lower().removesuffix("b").rstrip()
    unit = number.lstrip("0123456789.").strip()
    try:
        return int(float(number[: len(number) - len(unit)]) * _UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        raise click.UsageError(
            f"{text!r} is not a size: give a number of bytes, or 500MB, 5GB, 4GiB"
        ) from None


@click.command(
    "average",
    short_help="Write the mean of several checkpoints.",
    epilog=examples(
        "tensorbundle average averaged/model.ckpt model.ckpt-1000 model.ckpt-2000",
        "tensorbundle average averaged/model.ckpt old new --weights 1,3",
    ),
)
@destination_argument
@click.argument("sources", metavar="SRC...", nargs=-1, required=True, type=CheckpointPath())
@click.option("--weights", metavar="W,W,...", help="The weight of each SRC. Default: all the same.")
@shards_option
@alignment_option
@overwrite_option
@json_option
def average(
    destination: str,
    sources: tuple[str, ...],
    weights: str | None,
    shards: int,
    alignment: int,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Writes the mean of several checkpoints.

    DST is the new prefix and comes first. The checkpoints must have the same tensors. Floats are
    averaged in float64; all other tensors, such as global_step, come from the last SRC.

    Exit status: 1 if a checkpoint is damaged.
    """
    factors = None if weights is None else _weights(weights)
    if len(sources) == 1 and not overwrite and os.path.exists(f"{destination}.index"):
        raise click.UsageError(
            f"{destination!r} is a checkpoint: give DST, the new one, first, and then each SRC"
        )
    for source in sources:
        check_index(source)
    start = time.monotonic()
    try:
        with terminal.progress(destination, "average") as report_progress:
            report = tensorbundle.average(
                sources,
                destination,
                weights=factors,
                shards=shards,
                alignment=alignment,
                overwrite=overwrite,
                progress=report_progress,
            )
    except tensorbundle.CorruptionError as error:
        return damaged(error)
    if as_json:
        terminal.print_json(report_document(report))
    else:
        _print_summary(report, str, time.monotonic() - start)
    return OK


def _weights(text: str) -> list[float]:
    try:
        return [float(weight) for weight in text.split(",")]
    except ValueError:
        raise click.UsageError(
            f"--weights: {text!r} is not a list of numbers such as 1,3"
        ) from None


@click.command(
    "align",
    short_help="Write a copy whose tensors can be mapped.",
    epilog=examples(
        "tensorbundle align model.ckpt-1000 aligned/model.ckpt-1000",
    ),
)
@source_argument
@destination_argument
@click.option(
    "--alignment",
    type=int,
    default=4096,
    show_default=True,
    metavar="N",
    help="Start tensors of 1 MB or more at a multiple of N bytes, a power of two.",
)
@json_option
def align(source: str, destination: str, alignment: int, as_json: bool) -> int:
    """Copies a checkpoint so that its tensors can be mapped.

    SRC is a prefix, a directory, or one of the checkpoint's files. DST is the new prefix; for a
    directory, SRC's base name is appended. No file is replaced, and every byte is compared with its
    checksum. TensorFlow reads the copy as the same checkpoint.

    Exit status: 1 if SRC is damaged.
    """
    check_index(source)
    try:
        with terminal.progress(source, "align") as report_progress:
            report = tensorbundle.align(
                source, destination, alignment=alignment, progress=report_progress
            )
    except tensorbundle.CorruptionError as error:
        return damaged(error)
    except ValueError as error:  # invalid alignment or destination
        raise click.UsageError(str(error)) from None
    if as_json:
        terminal.print_json(dataclasses.asdict(report))
    elif terminal.for_people():
        terminal.print_text(
            f"{report.path}: {report.moved:,} of {plural(report.slices, 'stored slice')} moved, "
            f"{size_text(report.bytes_after)} (before: {size_text(report.bytes_before)})"
        )
    else:
        terminal.print_text(
            f"{report.path}: {report.moved} of {report.slices} stored slices moved, "
            f"{report.bytes_after} bytes (before: {report.bytes_before})"
        )
    return OK
