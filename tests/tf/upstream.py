# SPDX-License-Identifier: Apache-2.0
"""Runs a file of TensorFlow's own tests, with or without tensorbundle installed.

The file is outside this repository: it is read and run, never copied. It runs in a separate process
in TF1 mode, for which those tests were written and which a wheel turns off at import::

    python tests/tf/upstream.py [--installed] [--kernels] [--tf2] [--resource] [--match WORD] FILE

prints the traceback of each failed test, and the counts.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

# The longest file takes about three minutes on two cores.
TIMEOUT_SECONDS = 1200


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcomes of the tests in one file.

    Attributes:
        outcomes: Test name to "passed", "failed" or "skipped".
        details: Name of a failed test to its traceback.
        calls: `tensorbundle.tf.calls()` at the end, and the calls that registered kernels served;
            empty if tensorbundle is not installed and no kernel is registered.
        missing: What the file imports and this TensorFlow does not have; then no test has run.
        output: The output of the process.
    """

    outcomes: dict[str, str]
    details: dict[str, str]
    calls: dict[str, int]
    missing: str
    output: str

    def names(self, outcome: str) -> set[str]:
        """Returns the tests with that outcome."""
        return {name for name, each in self.outcomes.items() if each == outcome}


class _Recorder(unittest.TestResult):
    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, str] = {}
        self.details: dict[str, str] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.outcomes[test.id()] = "passed"

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self.outcomes[test.id()] = "skipped"

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self.outcomes[test.id()] = "skipped"

    def _fail(self, test: unittest.TestCase, err: Any) -> None:
        self.outcomes[test.id()] = "failed"
        self.details[test.id()] = self._exc_info_to_string(err, test)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self._fail(test, err)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self._fail(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._fail(test, err)


def run(
    file: str | Path,
    *,
    installed: bool = False,
    kernels: bool = False,
    match: str = "",
    op: str = "auto",
    tf2: bool = False,
    resource: bool = False,
) -> Report:
    """Runs one file of tests in a separate process.

    Args:
        file: The path of the file.
        installed: Whether TensorFlow's functions are patched.
        kernels: Whether kernels are registered for TensorFlow's ops.
        match: Runs only the tests whose name contains this.
        op: The option ``op`` of `tensorbundle.tf.options` for the whole process; or ``"absent"``
            to run without the op library.
        tf2: Runs in TF2 mode, for tests that were written for it.
        resource: Uses resource variables in TF1 mode too.

    Raises:
        RuntimeError: The process ended without a report. The message contains its output.
    """
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "report.json"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),  # the package of this process
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "CUDA_VISIBLE_DEVICES": "",
            "TEST_TMPDIR": scratch,
        }
        arguments = [str(file), "--match", match, "--op", op, "--result", str(result)]
        arguments += ["--installed"] * installed + ["--kernels"] * kernels + ["--tf2"] * tf2
        arguments += ["--resource"] * resource
        process = subprocess.run(
            [sys.executable, __file__, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if not result.exists():
            raise RuntimeError(
                f"{file}: no report (exit status {process.returncode}):\n{process.stdout[-4000:]}"
            )
        return Report(**json.loads(result.read_text()), output=process.stdout)


def _name_keras_for_estimator() -> None:
    """Adds the Keras names that Estimator's newest tests import from its package."""
    import tensorflow as tf

    try:
        from tensorflow_estimator.python.estimator import util
    except ImportError:
        return
    for name, module in [
        ("tf_keras", tf.keras),
        ("tf_keras_v1", tf.compat.v1.keras),
        ("tf_keras_v2", tf.keras),
    ]:
        if not hasattr(util, name):
            setattr(util, name, module)


def _load(file: Path) -> Any:
    specification = importlib.util.spec_from_file_location(f"upstream_{file.stem}", file)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module  # some tests look up their classes there
    specification.loader.exec_module(module)
    return module


def _selected(suite: unittest.TestSuite, match: str) -> unittest.TestSuite:
    chosen = unittest.TestSuite()
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            chosen.addTest(_selected(each, match))
        elif match in each.id():
            chosen.addTest(each)
    return chosen


def _run_in_process(options: argparse.Namespace) -> dict[str, Any]:
    import tensorflow as tf
    from absl import flags

    from tensorbundle.tf import installation, op_library
    from tensorbundle.tf.options import set_options

    if not options.tf2:
        tf.compat.v1.disable_v2_behavior()
    if options.resource:
        tf.compat.v1.enable_resource_variables()
    flags.FLAGS(sys.argv[:1])
    _name_keras_for_estimator()
    if options.installed:
        installation.install()
        if options.op == "absent":
            op_library.load = lambda: None
            op_library.unavailable_reason = lambda: "disabled for this run"
        else:
            set_options(op=options.op)
    if options.kernels:
        op_library.load_op_library()
    recorder = _Recorder()
    missing = ""
    try:
        suite = unittest.defaultTestLoader.loadTestsFromModule(_load(Path(options.file)))
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "tensorflow":
            raise  # the environment lacks a package
        missing = str(error)
    else:
        _selected(suite, options.match).run(recorder)
    calls = installation.calls() if options.installed else {}
    if options.kernels:
        calls |= {name: n for name, n in op_library.kernel_calls().items() if n}
    return {
        "outcomes": recorder.outcomes,
        "details": recorder.details,
        "calls": calls,
        "missing": missing,
    }


def _print_report(report: Report) -> None:
    for name in sorted(report.names("failed")):
        print(f"failed {name}\n{report.details[name]}")
    if report.missing:
        print(report.missing)
    print(collections.Counter(report.outcomes.values()), report.calls)


def main() -> None:
    """Runs the file named on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--installed", action="store_true")
    parser.add_argument("--kernels", action="store_true", help="with kernels for TensorFlow's ops")
    parser.add_argument("--tf2", action="store_true", help="with TF2 behaviour")
    parser.add_argument("--resource", action="store_true", help="with resource variables")
    parser.add_argument("--match", default="")
    parser.add_argument("--op", default="auto", choices=["auto", "stock", "absent"])
    parser.add_argument("--result", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.result:
        Path(options.result).write_text(json.dumps(_run_in_process(options)))
    else:
        arguments = {name: value for name, value in vars(options).items() if name != "result"}
        _print_report(run(arguments.pop("file"), **arguments))


if __name__ == "__main__":
    main()
