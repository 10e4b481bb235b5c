# SPDX-License-Identifier: Apache-2.0
"""Every public name exists, has a docstring, and keeps its signature."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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


# What programs may rely on: names, order and defaults of arguments. More keyword arguments with
# defaults may follow.
MISSING = "missing='raise', mismatch='raise', cast=False"
FILES = "shards=1, alignment=64"
EDITS = (
    "keep=None, drop=None, slots=True, rename=None, cast=None, transpose=None, partition=None, "
    "merge=False, update=None"
)
WARM_START = (
    "ckpt_to_initialize_from, vars_to_warm_start='.*', var_name_to_vocab_info=None, "
    "var_name_to_prev_var_name=None"
)
OPTIONS = "*, mode=None, verify=None, threads=None, op=None"
SIGNATURES = {
    "load_checkpoint": "ckpt_dir_or_file",
    "NewCheckpointReader": "filepattern",
    "list_variables": "ckpt_dir_or_file",
    "load_variable": "ckpt_dir_or_file, name",
    "CheckpointReader.has_tensor": "self, tensor_str",
    "CheckpointReader.get_tensor": "self, tensor_str",
    "CheckpointReader.get_variable_to_shape_map": "self",
    "CheckpointReader.get_variable_to_dtype_map": "self",
    "CheckpointReader.debug_string": "self",
    "checkpoint_exists": "checkpoint_prefix",
    "latest_checkpoint": "checkpoint_dir, latest_filename=None",
    "get_checkpoint_state": "checkpoint_dir, latest_filename=None",
    "checkpoints_iterator": ("checkpoint_dir, min_interval_secs=0, timeout=None, timeout_fn=None"),
    "open": "path, *, verify='lazy', io='auto', threads=None",
    "load": "path, names=None, *, threads=None",
    "Checkpoint.keys": "self",
    "Checkpoint.load": "self, names=None, *, threads=None",
    "Checkpoint.state_dict": "self, names=None, *, rename=None, dtype=None",
    "Checkpoint.stream": f"self, names=None, *, max_bytes={256 << 20}",
    "Checkpoint.summary": "self",
    "Checkpoint.verify": "self, names=None, *, progress=None",
    "Checkpoint.close": "self",
    "Tensor.byte_ranges": "self, index=Ellipsis",
    "Tensor.chunks": "self, rows=None, *, out=None",
    "Tensor.copy_on_write": "self, index=Ellipsis",
    "Tensor.explain": "self, index=Ellipsis",
    "Tensor.read": "self, index=Ellipsis, *, out=None",
    "Tensor.take": "self, ids, *, out=None, fill=None",
    "Tensor.torch": "self, index=Ellipsis, *, dtype=None, device=None",
    "Tensor.__array__": "self, dtype=None, copy=None",
    "Tensor.__dlpack__": "self, *, stream=None, max_version=None, dl_device=None, copy=None",
    "Tensor.__dlpack_device__": "self",
    "remap_vocab": "new_vocab, old_vocab, *, new_size=None, old_size=None, new_offset=0",
    "load_and_remap": (
        "tensor, *, rows=None, columns=None, num_rows=None, fill=0, num_oov_rows=0, "
        "num_oov_columns=0, out=None"
    ),
    "VocabInfo": (
        "new_vocab, new_vocab_size, num_oov_buckets, old_vocab, old_vocab_size=-1, "
        "backup_initializer=None, axis=0"
    ),
    "align": "src, dst, *, alignment=4096",
    "average": "srcs, dst, *, weights=None, progress=None",
    "convert": f"src, dst, *, to=None, {EDITS}, max_bytes=None",
    "diff": "a, b, *, rename=None, rtol=0.0, atol=0.0, values=False",
    "edit": f"src, dst, *, {EDITS}, {FILES}, progress=None",
    "save": f"prefix, tensors, *, {FILES}, overwrite=False",
    "Writer": f"prefix, *, {FILES}, overwrite=False",
    "Writer.add": "self, name, value",
    "Writer.add_slices": "self, name, shape, slices",
    "Writer.add_chunks": "self, name, shape, dtype, chunks",
    "update_checkpoint_state": "directory, prefix, all_model_checkpoint_paths=None",
    "load_keras": f"model, path, *, by=None, rename=None, {MISSING}",
    "set_num_threads": "n",
    "show_versions": "",
    "clear_caches": "",
    "stand_in": "",
}
TENSORFLOW_SIGNATURES = {
    "init_from_checkpoint": f"ckpt_dir_or_file, assignment_map, *, {MISSING}",
    "warm_start": f"{WARM_START}, *, {MISSING}",
    "tf.options": OPTIONS,
    "tf.set_options": OPTIONS,
    "tf.install": "remote=False",
    "tf.uninstall": "",
    "tf.installed": "",
    "tf.plan_init": "ckpt_dir_or_file, assignment_map",
    "tf.plan_warm_start": WARM_START,
    "tf.calls": "",
    "tf.load_op_library": "",
}
ATTRIBUTES = {
    "Checkpoint": {"full_names", "values", "items", "get", "closed"},
    "Tensor": {"name", "shape", "dtype", "ndim", "size", "nbytes", "stored_dtype", "slices"}
    | {"aligned", "error"},
    "Remap": {"ids", "num_present"},
    "VerifyReport": {"ok", "damaged", "raise_for_damage"},
    "DiffReport": {"changed", "only_a", "only_b", "renamed"},
    "EditReport": {"kept", "dropped", "renamed", "cast"},
    "LoadReport": {"loaded", "missing", "unused", "mismatched"},
}
ALSO = {
    "NotFoundError": [],
    "TensorNotFoundError": ["NotFoundError", KeyError],
    "CheckpointNotFoundError": ["NotFoundError", FileNotFoundError],
    "CorruptionError": [ValueError],
    "ShapeMismatchError": [ValueError],
    "UnsupportedError": [NotImplementedError],
    "IOFailure": [OSError],
}
COMMANDS = {
    "ls": "--flat --sort --long --stats --no-slots --json",
    "show": "--json",
    "verify": "--json",
    "diff": "--json",
    "convert": "--keep --drop --no-slots --rename --rules --cast --transpose --partition --merge "
    "--strict --dry-run --json",
    "edit": "--keep --drop --no-slots --rename --rules --cast --transpose --partition --merge "
    "--strict --dry-run --json",
    "average": "--json",
    "align": "--json",
    "plan": "--variables --map --json",
    "plugin status": "--json",
    "plugin enable": "--json",
    "plugin disable": "--json",
    "run": "--json",
}


def look_up(name: str) -> Any:
    value: Any = tensorbundle
    for part in name.split("."):
        value = getattr(value, part)
    return value


def check_signature(name: str, promised: str) -> None:
    wanted, others = arguments(eval(f"lambda {promised}: None"))
    found, more = arguments(look_up(name))
    assert list(found.items())[: len(wanted)] == list(wanted.items())
    assert {key: more[key] for key in others if key in more} == others
    unexpected = {**found, **more}.items() - {**wanted, **others}.items()
    assert inspect.Parameter.empty not in dict(unexpected).values()


def arguments(function: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the defaults of the positional and of the keyword-only arguments."""
    parameters = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    assert all(each.kind in kinds for each in parameters)
    positional, keyword = ({p.name: p.default for p in parameters if p.kind == k} for k in kinds)
    return positional, keyword


def test_check_of_signatures_finds_differences() -> None:
    check_signature("save", "prefix, tensors, *, shards=1")
    for wrong in (
        "tensors, prefix",
        "prefix",
        "prefix, tensors, shards=1",
        "prefix, tensors, *, shards=2",
        "prefix, tensors, *, absent=None",
        "prefix, tensors, more=None",
    ):
        with pytest.raises(AssertionError):
            check_signature("save", wrong)


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name: str) -> None:
    check_signature(name, SIGNATURES[name])


@pytest.mark.parametrize("name", TENSORFLOW_SIGNATURES)
def test_signature_with_tensorflow(name: str) -> None:
    pytest.importorskip("tensorflow")
    check_signature(name, TENSORFLOW_SIGNATURES[name])


def test_attributes() -> None:
    for name, attributes in ATTRIBUTES.items():
        thing = look_up(name)
        known = {*dir(thing), *getattr(thing, "__annotations__", ())}
        assert attributes - known == set(), name
    fields = ("offset", "shape", "file", "file_offset", "nbytes", "crc32c")
    assert tensorbundle.StoredSlice._fields == fields


def test_bases_of_errors() -> None:
    for name, others in ALSO.items():
        for other in (tensorbundle.Error, *others):
            base = look_up(other) if isinstance(other, str) else other
            assert issubclass(look_up(name), base), name


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_commands(command: str) -> None:
    cli = pytest.importorskip("tensorbundle.cli")
    found = cli.program
    for part in command.split():
        found = found.commands[part]
    options = {option for parameter in found.params for option in parameter.opts}
    assert set(COMMANDS[command].split()) - options == set()


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
