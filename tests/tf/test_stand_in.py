# SPDX-License-Identifier: Apache-2.0
"""Scripts run with the stand-in as they run with TensorFlow; its parts equal TensorFlow's."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading_scripts import SCRIPTS, arguments, write_model

import tensorbundle as tb
from tensorbundle.tensorflow_api import dtypes, errors, gfile, names

tf = pytest.importorskip("tensorflow")

# Runs scripts in one process; prints {script: [exit status, stdout]}.
DRIVER = """
import contextlib, io, json, runpy, sys
results = {}
for name, path, args in json.loads(sys.argv[1]):
    sys.argv = [path, *args]
    text = io.StringIO()
    status = 0
    with contextlib.redirect_stdout(text):
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
    results[name] = [status, text.getvalue()]
print(json.dumps(results))
"""
WITH_STAND_IN = """
import sys
from tensorbundle.stand_in import run_script
sys.exit(run_script(sys.argv[1], sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("scripts") / "model")


def place(root: Path, name: str) -> tuple[Path, Path]:
    """Returns the file of a script, and the folder for its output."""
    out = root / f"out-{name}"
    out.mkdir(parents=True)
    script = root / f"{name}.py"
    script.write_text(SCRIPTS[name][0])
    return script, out


@pytest.fixture(scope="module")
def with_tensorflow(
    model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Runs all scripts with TensorFlow; returns their folder, and {script: [status, stdout]}."""
    root = tmp_path_factory.mktemp("tensorflow")
    jobs = []
    for name in SCRIPTS:
        script, out = place(root, name)
        jobs.append([name, str(script), arguments(name, model, out)])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(jobs)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return root, json.loads(done.stdout.splitlines()[-1])


def contents(folder: Path) -> dict[str, Any]:
    """Returns the files below a folder by relative path: their bytes, or the arrays of an npz."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        key = str(path.relative_to(folder))
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                found[key] = {
                    name: (str(arrays[name].dtype), arrays[name].tolist()) for name in arrays
                }
        elif path.is_file():
            found[key] = path.read_bytes()
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_does_the_same(
    name: str, model: Path, tmp_path: Path, with_tensorflow: tuple[Path, dict[str, Any]]
) -> None:
    if name == "flags":
        pytest.importorskip("absl")
    script, out = place(tmp_path, name)
    done = subprocess.run(
        [sys.executable, "-c", WITH_STAND_IN, str(script), *arguments(name, model, out)],
        capture_output=True,
        text=True,
        check=False,
    )
    root, results = with_tensorflow
    assert [done.returncode, done.stdout] == results[name], done.stderr
    assert done.stdout
    assert contents(out) == contents(root / f"out-{name}")


def test_imported_tensorflow_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match=re.escape(tf.__version__)), tb.stand_in():
        pass
    assert sys.modules["tensorflow"] is tf


def test_installed_tensorflow_is_found_again(tmp_path: Path) -> None:
    code = """
import sys
import tensorbundle as tb
with tb.stand_in():
    import tensorflow
    stand_in = tensorflow
assert not [name for name in sys.modules if name.split(".")[0] == "tensorflow"]
import tensorflow
assert tensorflow is not stand_in and tensorflow.keras and tensorflow.__file__
try:
    with tb.stand_in():
        pass
except RuntimeError:
    assert sys.modules["tensorflow"] is tensorflow
    print(tb.tf.options, stand_in.float32.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("float32\n"), done.stderr


def fill(folder: Path) -> None:
    """Writes the files that the cases use."""
    (folder / "d/sub").mkdir(parents=True)
    (folder / "d/a.txt").write_bytes("one\ntwo\r\nthrée\n\nlast".encode())
    (folder / "d/.hidden").write_bytes(b"")
    (folder / "d/[x].txt").write_bytes(b"x")
    (folder / "d/bad").write_bytes(b"\xff\n")
    (folder / "d/sub/b").write_bytes(b"\0\xfe")
    (folder / "d/link").symlink_to("a.txt")
    (folder / "outside").symlink_to("d/sub")
    (folder / "d/broken").symlink_to("nothing")


PATHS = [
    "d",
    "d/",
    "d/a.txt",
    "d/a.txt/x",
    "d/link",
    "d/broken",
    "none",
    "none/x",
    "",
    "~",
    "x" * 300,
]
PATHS += [b"d", Path("d/sub"), 5, None, "foo://x"]  # type: ignore[list-item]
ON_PATHS = ["exists", "isdir", "listdir", "stat", "remove", "rmtree", "mkdir", "makedirs"]
PATTERNS: list[Any] = [
    *("d/*", "d/*.txt", "*/*", "*", "d/**", "d/[[]x].txt", "d/[ab]*", "d/[^a]*", "d/[!a]*"),
    *("none/*", "d/.*", "d/?.txt", "./d/a*", "d/sub/../*", "d/a.txt/*", "d/{a,b}.txt", "d/*/"),
    *(
        "d",
        "none",
        "",
        "d/\\[x].txt",
        "d/*/b",
        "out*/b",
        "d/broken",
        "d/sub/",
        b"d/a*",
        ["d/a*", "d/s*"],
        [b"d/s*"],
        "foo://*",
    ),
]
PAIRS = [
    *(("d/a.txt", "d/bad"), ("d/a.txt", "new"), ("none", "new"), ("d/a.txt", "none/new")),
    *(("d/a.txt", "d/sub"), ("d/a.txt", "d/a.txt"), ("d/link", "new"), ("d/sub", "new")),
]

CASES: dict[str, Callable[[Any], Any]] = {
    **{
        f"{name} {path!r:.20}": lambda g, name=name, path=path: getattr(g, name)(path)
        for name in ON_PATHS
        for path in PATHS
    },
    **{f"glob {each!r}": lambda g, each=each: sorted(g.glob(each)) for each in PATTERNS},
    **{
        f"{name} {pair} {overwrite}": lambda g, name=name, pair=pair, overwrite=overwrite: getattr(
            g, name
        )(*pair, overwrite=overwrite)
        for name in ("copy", "rename")
        for pair in PAIRS
        for overwrite in (False, True)
        # TensorFlow leaves an empty file.
        if name == "rename" or pair not in (("d/sub", "new"), ("d/a.txt", "d/a.txt"))
    },
    "walk": lambda g: sorted(map(str, ((a, sorted(b), sorted(c)) for a, b, c in g.walk("d")))),
    "walk up": lambda g: [name for name, *_ in g.walk("d/sub", topdown=False)],
    "walk a link": lambda g: list(g.walk("outside")),
    "walk none": lambda g: list(g.walk("none")),
    "join": lambda g: (
        g.join("a", "b"),
        g.join("a/", "/b"),
        g.join("gs://a", "b"),
        g.join(b"a", b"b"),
    ),
}

FILES: dict[str, Callable[[Any], Any]] = {
    **{
        f"read {mode!r}": lambda g, mode=mode: g.GFile("d/a.txt", mode).read()
        for mode in ("r", "rb", "r+", "a+", "a", "x", "rt", "", "br")
    },
    "lines": lambda g: list(g.GFile("d/a.txt")),
    "readlines": lambda g: g.GFile("d/a.txt", "rb").readlines(),
    "parts": lambda g: (
        lambda f: (f.read(3), f.tell(), f.readline(), f.seek(1), f.read(4), f.tell())
    )(g.GFile("d/a.txt")),
    "facts": lambda g: (lambda f: (f.size(), f.name, f.mode, f.seekable()))(g.GFile("d/a.txt")),
    "end": lambda g: (lambda f: (len(f.read()), f.read(), f.readline(), f.read(9), f.read(0)))(
        g.GFile("d/a.txt", "rb")
    ),
    "inside a character": lambda g: (lambda f: (f.seek(13), f.read(1)))(g.GFile("d/a.txt")),
    "whence": lambda g: (lambda f: (f.seek(-4, 2), f.read(), f.seek(0), f.seek(2, 1), f.read(1)))(
        g.GFile("d/a.txt", "rb")
    ),
    "position": lambda g: (lambda f: (f.seek(position=3), f.tell()))(g.GFile("d/a.txt")),
    **{
        f"seek {args}": lambda g, args=args: g.GFile("d/a.txt").seek(*args)
        for args in ((1000,), (-4,), (1, 7), (), (0, 2))
    },
    "negative": lambda g: g.GFile("d/a.txt").read(-2),
    "write to r": lambda g: g.GFile("d/a.txt").write("x"),
    "flush r": lambda g: g.GFile("d/a.txt").flush(),
    "not UTF-8": lambda g: g.GFile("d/bad").read(),
    **{f"open {name!r}": lambda g, name=name: g.GFile(name).name for name in ("none", "d")},
    **{
        f"read of {name!r}": lambda g, name=name: g.GFile(name).read()
        for name in ("none", "d", b"d/bad")
    },
    "size of none": lambda g: g.GFile("none").size(),
    **{
        f"write to {name!r}": lambda g, name=name: g.GFile(name, "w").write("x")
        for name in ("d", "none/x", "d/a.txt/x")
    },
    **{
        f"write {mode}": lambda g, mode=mode: (
            lambda f: (f.write("é"), f.write(b"\xff"), f.flush(), f.tell(), f.close())
        )(g.GFile("d/a.txt", mode))
        for mode in ("w", "wb", "a", "w+", "a+", "r+")
    },
    "read w": lambda g: g.GFile("new", "w").read(),
    "write a number": lambda g: g.GFile("new", "w").write(5),
    "write nothing": lambda g: g.GFile("new", "w").close(),
    "write empty": lambda g: (lambda f: (f.write(""), f.close()))(g.GFile("new", "w")),
    "again": lambda g: (lambda f: (f.read(3), f.close(), f.read(3)))(g.GFile("d/a.txt")),
    "keywords": lambda g: g.GFile(name=Path("d/a.txt"), mode="rb").read(2),
}


def outcome(case: Callable[[Any], Any], module: Any, folder: Path) -> tuple[Any, Any]:
    """Returns the result of a case, or the exception's class name, and what is in the folder."""
    fill(folder)
    os.chdir(folder)
    result: Any
    try:
        result = case(module)
    except (tf.errors.OpError, errors.OpError, TypeError, UnicodeDecodeError) as error:
        result = f"raised {type(error).__name__}"
    if hasattr(result, "length"):
        length = 0 if result.is_directory else result.length
        result = (length, result.mtime_nsec > 0, result.is_directory)
    if isinstance(result, list):
        result = sorted(map(str, result))
    tree = {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else path.is_dir()
        for path in folder.rglob("*")
    }
    return result, tree


@pytest.mark.parametrize("name", [*CASES, *FILES])
def test_gfile_does_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case = CASES.get(name) or FILES[name]
    expected = outcome(case, tf.io.gfile, tmp_path / "theirs")
    assert outcome(case, gfile, tmp_path / "ours") == expected


def test_old_gfile_has_the_same_names() -> None:
    old = tf.compat.v1.gfile
    expected = {name for name in dir(old) if name[0].isupper()}
    assert {name for name in dir(names.root().gfile) if name[0].isupper()} == expected


@pytest.mark.parametrize(
    "name", ["errors", "io.gfile", "compat", "compat.v1.logging", "dtypes", "compat.v1.train"]
)
def test_every_name_exists_in_tensorflow(name: str) -> None:
    ours, theirs = names.root(), tf
    for part in name.split("."):
        ours, theirs = getattr(ours, part), getattr(theirs, part)
    public = {each for each in dir(ours) if not each.startswith("_")}
    assert public
    assert not public - set(dir(theirs)) - {"exception_type_from_error_code"}


ATTRIBUTES = [
    *("name", "size", "is_floating", "is_integer", "is_complex", "is_bool", "is_quantized"),
    *("is_unsigned", "is_numeric", "is_numpy_compatible", "as_numpy_dtype", "as_datatype_enum"),
    *("min", "max", "limits"),
]


def described(dtype: Any) -> dict[str, Any]:
    found = {"repr": repr(dtype), "str": str(dtype), "real": str(dtype.real_dtype)}
    for name in ATTRIBUTES:
        try:
            found[name] = getattr(dtype, name)
        except (TypeError, ValueError, KeyError):
            found[name] = "raised"
    return found


def numbers() -> list[int]:
    return [number for number in range(1, 40) if is_known(number)]


def is_known(number: int) -> bool:
    try:
        return bool(tf.as_dtype(number))
    except TypeError:
        return False


@pytest.mark.parametrize("number", numbers())
def test_dtype_is_described_the_same(number: int) -> None:
    assert described(dtypes.as_dtype(number)) == described(tf.as_dtype(number))


def named_dtypes(module: Any, kind: type) -> dict[str, str]:
    """Returns the dtypes among the names of a module, without those of references."""
    found = {name: getattr(module, name) for name in dir(module) if not name.endswith("_ref")}
    return {name: each.name for name, each in found.items() if isinstance(each, kind)}


@pytest.mark.parametrize("name", ["tf", "tf.dtypes", "tf.compat.v1"])
def test_dtypes_have_the_same_names(name: str) -> None:
    ours, theirs = names.root(), tf
    for part in name.split(".")[1:]:
        ours, theirs = getattr(ours, part), getattr(theirs, part)
    assert named_dtypes(ours, dtypes.DType) == named_dtypes(theirs, tf.DType)


VALUES: list[Any] = [
    *(float, int, bool, str, object, complex, bytes, None, 1, 1.0, True, 1000, [], "float", "half"),
    *("double", "int", "float32", "bfloat16", "U", ">f4", "string", "float8_e5m2", np.float32(1)),
    *(np.dtype("S3"), np.dtype("<U3"), np.str_, np.bytes_, np.intc, np.longlong, np.ulonglong),
    *(np.dtype(">f4"), np.zeros(2), np.void, np.dtype([("qint8", np.int8)]), np.dtype("M8[s]")),
    *(np.float64, np.int64, np.uint8, np.bool_, np.object_, np.dtype(np.longlong), np.generic),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_as_dtype_accepts_the_same(value: Any) -> None:
    def result(module: Any) -> Any:
        try:
            return module.as_dtype(value).name, [
                module.as_dtype(name) == value for name in ("float32", "string", "int64", "bool")
            ]
        except TypeError:
            return "raised", module.as_dtype("float32") == value

    assert result(dtypes) == result(tf)


def test_exceptions_have_the_same_codes() -> None:
    for name in [each for each in dir(errors) if not each.startswith("_")]:
        theirs = getattr(tf.errors, name, None)
        ours = getattr(errors, name)
        if name.isupper():
            assert ours == theirs
        elif isinstance(theirs, type) and name != "OpError":
            error = pickle.loads(pickle.dumps(ours(None, None, "m")))
            other = theirs(None, None, "m")
            for attribute in ("message", "error_code", "op", "node_def"):
                assert getattr(error, attribute) == getattr(other, attribute)
            assert str(error) == str(other)


def test_garbage_is_described_alike(tmp_path: Path) -> None:
    """TensorFlow's words, which scripts match, are in the messages."""
    (tmp_path / "bad").write_bytes(b"x" * 4096)
    for path, words in (
        ("bad", "Unable to open table file"),
        ("none", "Failed to find any matching"),
    ):
        for module in (tf.train, names.root().train):
            with pytest.raises((tf.errors.OpError, errors.OpError), match=words):
                module.load_checkpoint(str(tmp_path / path))
