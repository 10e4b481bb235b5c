# SPDX-License-Identifier: Apache-2.0
"""The command-line program ``tensorbundle``: its commands, errors, exit status and completion.

People at a terminal see tables, colours and progress bars. A pipe gets tab-separated lines, and
``--json`` prints one JSON document. Exit status: 0, success; 1, a difference or damage was found;
2, bad usage or unreadable input, with a one-line error on stderr.

The commands are functions in ``cli_ls``, ``cli_show``, ``cli_check``, ``cli_write`` and
``cli_system`` that return the exit status.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence

import click

import tensorbundle
from tensorbundle import cli_check, cli_ls, cli_show, cli_system, cli_write, terminal
from tensorbundle.cli_options import OK, UNREADABLE
from tensorbundle.errors import DestinationExistsError

# The exit statuses that shells report for a program killed by SIGINT or SIGPIPE.
INTERRUPTED = 130
PIPE_CLOSED = 141

_NAME = "tensorbundle"
# The variable by which click's completion scripts call the program.
_COMPLETE = "_TENSORBUNDLE_COMPLETE"

# The commands by topic, in the order of the help.
_TOPICS: dict[str, tuple[click.Command, ...]] = {
    "Look": (cli_ls.ls, cli_show.show),
    "Check": (cli_check.verify, cli_check.diff, cli_check.plan),
    "Write": (cli_write.edit, cli_write.convert, cli_write.average, cli_write.align),
    "Scripts that import TensorFlow": (cli_system.run, cli_system.plugin_group),
}


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
            if terminal.is_terminal(stream) and terminal.is_ascii_locale():
                stream.reconfigure(encoding="ascii")  # rich and our tables draw with ASCII then
    if sys.stdout is None or sys.stdout.closed:
        return _error("standard output is closed")
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
    except click.UsageError as error:
        return _usage_error(error, args)
    except click.ClickException as error:
        return _error(error.format_message())
    except MemoryError:
        return _error("there is not enough memory")
    except DestinationExistsError as error:
        return _error(f"{error}{_overwrite_hint(args)}")
    except (tensorbundle.Error, ValueError, ImportError) as error:
        return _error(str(error))
    except OSError as error:
        # Errors of the checkpoint's files are tensorbundle.Error. An OSError without a file name
        # comes from stdout.
        if error.filename is None:
            return _error(f"cannot write the output: {error.strerror}")
        return _error(f"{error.strerror}: {error.filename!r}")
    except Exception as error:
        return _error(f"{type(error).__name__}: {error}")
    return status


def _error(message: str) -> int:
    terminal.print_error(message)
    return UNREADABLE


def _overwrite_hint(args: Sequence[str]) -> str:
    """Returns the other cure for a destination that exists, if the command has it."""
    command = program.commands.get(args[0])
    has_option = command is not None and any(each.name == "overwrite" for each in command.params)
    return ", or replace it with --overwrite" if has_option else ""


def _usage_error(error: click.UsageError, args: Sequence[str]) -> int:
    """Prints an error with the usage; for a command without arguments, its help to people."""
    message = error.format_message().rstrip(".")
    if message.endswith("?)"):
        message = message.replace("(Did", "Did")[:-1]
    if error.ctx is None:
        return _error(message)
    path = error.ctx.command_path
    if isinstance(error, click.MissingParameter):
        if terminal.for_people() and len(args) < len(path.split()):
            click.echo(error.ctx.get_help() + "\n")
        usage = " ".join(error.ctx.get_usage().split())
        return _error(f"{message}. {usage} (-h for help)")
    end = "" if message.endswith("?") else "."
    return _error(f"{message}{end} For help: {path} -h")


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
    instruction = os.environ.get(_COMPLETE)
    if instruction:
        return _complete(instruction)
    # click's own main() returns 1 for a closed pipe, which is the status for corruption here.
    try:
        with program.make_context(_NAME, list(args)) as context:
            status: int = program.invoke(context)
    except click.exceptions.Exit as end:  # --help, --version
        return end.exit_code
    return status


def _complete(instruction: str) -> int:
    """Answers a shell that completes a command, or prints the script that makes it ask."""
    from click.shell_completion import BashComplete, add_completion_class, shell_complete

    class Bash(BashComplete):
        """Bash, which adds the directories to other words instead of replacing them."""

        source_template = BashComplete.source_template.replace(
            "compopt -o dirnames", "compopt -o plusdirs -o filenames"
        )

    add_completion_class(Bash)
    return shell_complete(program, {}, _NAME, _COMPLETE, instruction)


class _Program(click.Group):
    """The program, whose help lists the commands by topic."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the commands in the order of the help."""
        del ctx
        return [str(command.name) for commands in _TOPICS.values() for command in commands]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands by topic."""
        names = self.list_commands(ctx)
        width = max(map(len, names))
        limit = formatter.width - 6 - width
        for topic, commands in _TOPICS.items():
            with formatter.section(topic):
                formatter.write_dl(
                    [
                        (str(command.name).ljust(width), command.get_short_help_str(limit))
                        for command in commands
                    ]
                )


def _print_script(context: click.Context, _: click.Parameter, shell: str | None) -> None:
    if shell is not None and not context.resilient_parsing:
        status = _complete(f"{shell}_source")
        context.exit(status)


@click.group(
    cls=_Program,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--completion",
    type=click.Choice(["bash", "zsh", "fish"]),
    expose_value=False,
    is_eager=True,
    callback=_print_script,
    help="Print the script that completes commands, options and names of tensors. In ~/.bashrc or "
    '~/.zshrc: eval "$(tensorbundle --completion bash)", or zsh. For fish: tensorbundle '
    "--completion fish > ~/.config/fish/completions/tensorbundle.fish",
)
@click.version_option(tensorbundle.__version__, prog_name=_NAME)
@click.pass_context
def program(context: click.Context) -> int:
    """Reads, checks, edits and converts TensorFlow checkpoints, without TensorFlow.

    A checkpoint is given as its prefix (model.ckpt-1000), its directory, or one of its files.
    A command with -h prints its help.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    return OK


for _commands in _TOPICS.values():
    for _command in _commands:
        program.add_command(_command)
