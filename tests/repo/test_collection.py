# SPDX-License-Identifier: Apache-2.0
"""The tests that pytest collects: their names are stable, and lists of them are up to date."""

import ast
import subprocess
import sys


def test_test_names_are_equal_in_every_process(request, repo):
    # pytest-xdist ends if its workers collect different names. A parameter that contains the time,
    # such as a file compressed by gzip, differs when a second passes between the workers.
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "tests"]
    output = subprocess.run(command, cwd=repo.root, capture_output=True, text=True, check=True)
    elsewhere = {line for line in output.stdout.splitlines() if "::" in line}
    here = {item.nodeid for item in request.session.items}
    assert not sorted(here - elsewhere)


def test_tests_that_do_not_run_under_sanitizers_exist(repo):
    folder = repo.root / "tests" / "python"
    tree = ast.parse((folder / "conftest.py").read_text(encoding="utf-8"))
    (table,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "UNSANITIZED"
    ]
    tests = [pair for pairs in table.values() for pair in pairs]
    missing = [
        (module, start)
        for module, start in tests
        if f"\ndef {start}" not in (folder / f"test_{module}.py").read_text(encoding="utf-8")
    ]
    assert tests
    assert not missing
