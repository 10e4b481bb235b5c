# SPDX-License-Identifier: Apache-2.0
"""Sessions for tests, lint, types and benchmarks, each in its own environment: see `nox -l`.

Continuous integration runs these sessions; the pre-commit hooks run ``lint`` and ``typing``. Set
TENSORBUNDLE_WHEEL to the path of a built wheel to skip the compilation.
"""

import os
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests", "typing", "cpp"]
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
C_SUFFIXES = {".h", ".c", ".cc"}
XDIST = "pytest-xdist>=3.5"  # for the long suites: `-n 2` runs two tests at a time
COMPETITORS = ["pyarrow", "safetensors", "tensorflow-cpu>=2.21", "tensorstore", "zarr>=3"]


def install(session: nox.Session, extras: str, *others: str) -> None:
    """Installs the package, from TENSORBUNDLE_WHEEL if it is set."""
    session.install(f"{os.environ.get('TENSORBUNDLE_WHEEL', '.')}[{extras}]", *others)


def ctest(session: nox.Session, *options: str) -> None:
    """Builds the C++ tests with warnings as errors and runs them."""
    session.install("cmake>=3.22", "ninja")
    build = str(Path(session.create_tmp()) / "build")
    session.run(
        "cmake", "-S", ".", "-B", build, "-G", "Ninja",
        "-DTENSORBUNDLE_BUILD_TESTS=ON", "-DTENSORBUNDLE_WERROR=ON", *options,
    )  # fmt: skip
    session.run("cmake", "--build", build)
    session.run("ctest", "--test-dir", build, "--output-on-failure", "-j2", "--timeout", "300")


@nox.session
def tests(session: nox.Session) -> None:
    """Runs the Python suite."""
    install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session
def cpp(session: nox.Session) -> None:
    """Runs the C++ suite; CC and CXX select the compiler."""
    ctest(session, *session.posargs)


@nox.session
def sanitize(session: nox.Session) -> None:
    """Runs the C++ suite under sanitizers: address,undefined, or those after `--`."""
    which = session.posargs[0] if session.posargs else "address,undefined"
    ctest(
        session, f"-DTENSORBUNDLE_SANITIZE={which}", "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
        "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -g1",  # higher levels are not worth their time
    )  # fmt: skip


# Everything that is undefined in C++, bounds of local objects, and conversions that lose bits: the
# compiler's warnings make those explicit. Not unsigned-integer-overflow, unsigned-shift-base and
# implicit-integer-sign-change: hashes, checksums and varints wrap by design.
FUZZ_SANITIZERS = "address,undefined,local-bounds,float-divide-by-zero,implicit-integer-truncation"


def build_fuzzers(session: nox.Session) -> str:
    """Builds the fuzz targets with Clang. Returns the build directory."""
    session.install("cmake>=3.22", "ninja")
    build = str(Path(session.cache_dir) / "fuzz")
    session.run(
        "cmake", "-S", ".", "-B", build, "-G", "Ninja",
        f"-DCMAKE_CXX_COMPILER={os.environ.get('CXX', 'clang++')}",
        "-DTENSORBUNDLE_BUILD_TESTS=ON", "-DTENSORBUNDLE_BUILD_FUZZERS=ON",
        f"-DTENSORBUNDLE_SANITIZE={FUZZ_SANITIZERS}",
        "-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -g1",
    )  # fmt: skip
    session.run("cmake", "--build", build, "--target", "fuzzers")
    return build


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzzes one target or all of them: `-- [TARGET] [SECONDS] [--jobs N] [--minimize]`."""
    session.run("python", "tests/fuzz/run.py", build_fuzzers(session), *session.posargs)


@nox.session(name="fuzz-record")
def fuzz_record(session: nox.Session) -> None:
    """Runs the fuzz targets for many inputs and writes the counts to docs/reliability.md."""
    session.run("python", "tests/fuzz/run.py", build_fuzzers(session), "--record", *session.posargs)


@nox.session
def deep(session: nox.Session) -> None:
    """Runs what takes too long for every change: all faults of tests/faults."""
    install(session, "test")
    session.run("pytest", "tests/faults", *session.posargs, env={"TENSORBUNDLE_DEEP": "1"})


@nox.session
def mutants(session: nox.Session) -> None:
    """Applies deliberate bugs, which the tests must find: `-- [ID|SUITE|PATH...] [--record]`."""
    session.install("cmake>=3.22", "ninja", "pybind11>=3", XDIST, "tensorflow-cpu>=2.21")
    install(session, "test")
    work = str(Path(session.cache_dir) / "mutants")
    session.run("python", "tests/mutants/run.py", "--work", work, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Checks the style of Python and C++; `-- fix` corrects it where possible."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    tools = [tool for tool in project["optional-dependencies"]["dev"] if "==" in tool]
    session.install(*tools)
    fix = "fix" in session.posargs
    session.run("ruff", "format", *([] if fix else ["--check"]), ".")
    sources = [
        str(path)
        for folder in ("cpp", "tests", "bench")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in C_SUFFIXES
    ]
    session.run("clang-format", *(["-i"] if fix else ["--dry-run", "-Werror"]), *sources)
    session.run("ruff", "check", *(["--fix"] if fix else []), ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Checks the package's types, and the extension's stub against the extension."""
    install(session, "test,dev")
    session.run("mypy")
    session.run(
        "python", "-m", "mypy.stubtest", "tensorbundle._core",
        "--mypy-config-file", "pyproject.toml",
        "--allowlist", "tests/typing/stubtest_allowlist.txt",
    )  # fmt: skip


@nox.session
def tf215(session: nox.Session) -> None:
    """Runs the Python suite with the last TensorFlow with Estimator, and NumPy 1.26."""
    # Newer versions of pyarrow need NumPy 2.
    install(session, "test", XDIST, "tensorflow-cpu==2.15.1", "numpy==1.26.*", "pyarrow<19")
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session
def tf_latest(session: nox.Session) -> None:
    """Runs the Python suite with the newest TensorFlow, and NumPy 2."""
    install(session, "test", XDIST, "tensorflow-cpu>=2.21", "numpy>=2")
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Runs every benchmark with every competitor and writes docs/performance.md."""
    install(session, "test,bench", "matplotlib", *COMPETITORS)
    session.run("python", "-m", "bench.report", *session.posargs)


@nox.session
def compare(session: nox.Session) -> None:
    """Compares the speed of this tree with another commit: `nox -s compare -- COMMIT`."""
    install(session, "test,bench", "safetensors", "tensorflow-cpu>=2.21")
    session.run("python", "-m", "bench.compare", *session.posargs)


@nox.session(name="bench-smoke")
def bench_smoke(session: nox.Session) -> None:
    """Runs every benchmark once, checks its result and does not time it."""
    install(session, "test,bench")
    session.run("pytest", "bench", "--benchmark-disable", *session.posargs)
