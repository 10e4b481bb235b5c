# SPDX-License-Identifier: Apache-2.0
"""The list of tests that do not run under sanitizers names tests that exist."""

import ast


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
