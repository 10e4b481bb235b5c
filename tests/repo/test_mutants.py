# SPDX-License-Identifier: Apache-2.0
"""The list of mutants in tests/mutants fits the sources."""

import importlib.util
import sys

import pytest


@pytest.fixture(scope="module")
def mutants(repo):
    """The module that reads the list."""
    path = repo.root / "tests" / "mutants" / "mutants.py"
    spec = importlib.util.spec_from_file_location("listed_mutants", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["listed_mutants"] = module  # for dataclasses
    spec.loader.exec_module(module)
    return module


def test_every_mutant_changes_one_place(mutants, repo):
    problems = [problem for mutant in mutants.load() for problem in mutant.problems(repo.root)]
    assert not problems, "\n".join(problems)


def test_ids_are_unique(mutants):
    ids = [mutant.id for mutant in mutants.load()]
    assert len(ids) == len(set(ids)), sorted(id for id in set(ids) if ids.count(id) > 1)


def exists(repo, mutant):
    """Returns whether the recorded test of a mutant exists."""
    if mutant.suite == "cpp":
        program, _, name = mutant.killed_by.partition(" ")
        (source,) = repo.root.glob(f"tests/cpp/*/{program}.cc")
        # "Suite.Test", and "Prefix/Suite.Test/0" of tests with parameters.
        test = next((part for part in name.split("/") if "." in part), ".")
        return test.rpartition(".")[2] in source.read_text(encoding="utf-8")
    for word in mutant.killed_by.split():
        path, _, name = word.partition("::")
        if f"def {name.partition('[')[0]}" not in (repo.root / path).read_text(encoding="utf-8"):
            return False
    return True


def test_every_recorded_test_exists(mutants, repo):
    missing = [
        f"{mutant.id}: {mutant.killed_by}"
        for mutant in mutants.load()
        if mutant.killed_by and not exists(repo, mutant)
    ]
    assert not missing, "\n".join(missing)
