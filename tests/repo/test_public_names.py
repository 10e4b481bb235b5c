# SPDX-License-Identifier: Apache-2.0
"""Every public name exists and has a docstring."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tensorbundle

READER_NAMES = {
    "load_checkpoint",
    "NewCheckpointReader",
    "CheckpointReader",
    "list_variables",
    "load_variable",
    "checkpoint_exists",
    "latest_checkpoint",
    "get_checkpoint_state",
    "checkpoints_iterator",
}
REWRITING_NAMES = {"align", "AlignReport", "convert", "ConvertReport", "edit", "EditReport"}
KERAS_NAMES = {"load_keras", "LoadError", "LoadReport"}
VOCABULARY_NAMES = {"VocabInfo", "load_and_remap", "remap_vocab"}
ERROR_NAMES = {
    "Error",
    "NotFoundError",
    "TensorNotFoundError",
    "CheckpointNotFoundError",
    "CorruptionError",
    "ShapeMismatchError",
    "UnsupportedError",
    "IOFailure",
}
TENSORFLOW_NAMES = {
    "calls",
    "install",
    "installed",
    "load_op_library",
    "options",
    "set_options",
    "uninstall",
}


def members(thing):
    """Returns the public methods and properties that a class itself defines."""
    return [
        (name, member)
        for name, member in vars(thing).items()
        if not name.startswith("_")
        and (inspect.isroutine(member) or isinstance(member, property | classmethod))
    ]


def test_public_names_are_exported():
    names = READER_NAMES | VOCABULARY_NAMES | REWRITING_NAMES | KERAS_NAMES | ERROR_NAMES
    assert set(tensorbundle.__all__) >= names


def test_tensorflow_is_imported_lazily(tmp_path):
    code = f"""
import sys, tensorbundle
assert "tensorbundle.tf" not in sys.modules
from tensorbundle import *
assert callable(warm_start) and callable(init_from_checkpoint)
assert {{"tf", "warm_start", "init_from_checkpoint"}} <= set(dir(tensorbundle))
assert tensorbundle.tf.options and tensorbundle.tf.Options and tensorbundle.tf.set_options
assert tensorbundle.tf.LoadReport and tensorbundle.tf.Mismatch
assert {TENSORFLOW_NAMES} <= set(dir(tensorbundle.tf)) & set(tensorbundle.tf.__all__)
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_tensorflow_names_have_docstrings():
    pytest.importorskip("tensorflow")
    functions = [tensorbundle.init_from_checkpoint, tensorbundle.warm_start]
    functions += [getattr(tensorbundle.tf, name) for name in tensorbundle.tf.__all__]
    assert all(callable(each) and inspect.getdoc(each) for each in functions)


def test_shadowing_names_are_not_in_star_imports():
    assert callable(tensorbundle.open)
    assert not {"open", "tf"} & set(tensorbundle.__all__)


CALLABLE = [name for name in tensorbundle.__all__ if callable(getattr(tensorbundle, name))]


@pytest.mark.parametrize("name", [*CALLABLE, "open"])
def test_every_public_name_has_a_docstring(name):
    thing = getattr(tensorbundle, name)
    assert inspect.getdoc(thing), name
    if inspect.isclass(thing):
        undocumented = [member for member, value in members(thing) if not inspect.getdoc(value)]
        assert not undocumented, f"{name} has members without a docstring: {undocumented}"


def test_members_finds_public_methods():
    found = dict(members(tensorbundle.CheckpointReader))
    assert {"has_tensor", "get_tensor", "debug_string"} <= set(found)


def docstrings(path):
    """Returns the docstrings of the classes and functions of a module, with their lines."""
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    found = [(node.lineno, ast.get_docstring(node)) for node in nodes]
    return [(line, text) for line, text in found if text is not None]


def test_docstrings_are_rendered_by_the_site():
    for path in Path(tensorbundle.__file__).parent.rglob("*.py"):
        for line, text in docstrings(path):
            place = f"{path.name}:{line}"
            # "Examples:" is a section of code. "Example:" is prose in a frame.
            assert not re.search(r"^Example:$|::$", text, re.MULTILINE), place
            prose = re.sub(r"``.+?``|`.+?`|^ *(>>>|\.\.\.) .*$", "", text, flags=re.M | re.S)
            assert prose.count("**") < 2, place  # what is between two powers would become bold
