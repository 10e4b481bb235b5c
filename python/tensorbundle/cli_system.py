# SPDX-License-Identifier: Apache-2.0
"""The commands ``plugin`` and ``run``, which concern scripts that import TensorFlow."""

from __future__ import annotations

import contextlib
import sys

import click

from tensorbundle import plugin, terminal
from tensorbundle.cli_options import DIFFERENT, OK, FilePath, examples, json_option


@click.group(
    "plugin",
    short_help="Make `import tensorflow` load tensorbundle.",
    invoke_without_command=True,
)
@click.pass_context
def plugin_group(context: click.Context) -> int:
    """Makes `import tensorflow` load tensorbundle.

    For scripts that cannot be changed: their restores are served by tensorbundle, and parameter
    servers have its ops. The commands manage a link in the TensorFlow of the Python that runs this
    program.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    return OK


@plugin_group.command("enable")
@json_option
def enable_plugin(as_json: bool) -> int:
    """Creates the link, or replaces a stale one."""
    return _report_plugin(plugin.enable(), as_json)


@plugin_group.command("disable")
@json_option
def disable_plugin(as_json: bool) -> int:
    """Removes the link."""
    return _report_plugin(plugin.disable(), as_json)


@plugin_group.command("status")
@json_option
def plugin_status(as_json: bool) -> int:
    """Prints the state of the link, its target, and the ops of TensorFlow that are served.

    Exit status: 1 if the link is stale, or if there is a file in its place that is not a link.
    """
    return _report_plugin(plugin.status(), as_json)


def _report_plugin(status: plugin.Status, as_json: bool) -> int:
    paths = {"library": status.library, "link": status.link, "target": status.target}
    texts = {name: None if path is None else str(path) for name, path in paths.items()}
    if as_json:
        terminal.print_json({"state": status.state, **texts, "serves": status.serves})
    else:
        click.echo(status.state)
        for name, text in texts.items():
            terminal.print_line(name, "none" if text is None else text)
        terminal.print_line("serves", ", ".join(status.serves) or "none")
    return DIFFERENT if status.state in ("stale", "foreign") else OK


@click.command(
    "run",
    short_help="Run a script without TensorFlow.",
    epilog=examples(
        "tensorbundle run convert_checkpoint.py --checkpoint model.ckpt-1000",
    ),
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("script", metavar="SCRIPT", type=FilePath())
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the exit status as JSON; the output of the script goes to stderr.",
)
def run(script: str, arguments: tuple[str, ...], as_json: bool) -> int:
    """Runs a script that reads checkpoints through `import tensorflow`, without TensorFlow.

    A stand-in offers the functions that read checkpoints, tf.io.gfile for local files, and dtypes.
    It names what it lacks when the script uses it. ARGS are the arguments of the script. Options of
    this command come before SCRIPT.

    Exit status: that of the script.
    """
    from tensorbundle.stand_in import run_script

    if not as_json:
        return run_script(script, arguments)
    with contextlib.redirect_stdout(sys.stderr):
        status = run_script(script, arguments)
    terminal.print_json({"script": script, "arguments": list(arguments), "status": status})
    return status
