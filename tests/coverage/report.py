# SPDX-License-Identifier: Apache-2.0
"""Reports the coverage of the core, per folder, from the counts of an instrumented build.

    python tests/coverage/report.py BUILD NAME PROFILES... [--limit PERCENT] [--missing] [--record]

BUILD is a build with TENSORBUNDLE_COVERAGE. PROFILES are the ``.profraw`` files that its tests
wrote, or folders of them. A branch is one outcome of a condition of the source: true, or false.
Instances of a template and copies of an inline function count together. NAME is the column of the
table in docs/reliability.md that --record writes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "cpp" / "tensorbundle"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- coverage: begin -->", "<!-- coverage: end -->"
# The folders that the limit is for. The others are listed.
LIMITED = ("base", "table", "bundle", "v1", "read", "write")

# The place of a condition, from where to where in which file.
Place = tuple[int, int, int, int]


class File:
    """The counts of one source file."""

    def __init__(self) -> None:
        self.branches: dict[Place, tuple[int, int]] = {}  # times true, times false
        self.lines: Counter[str] = Counter()

    def uncovered(self) -> list[tuple[Place, str]]:
        """Returns the outcomes that no test has."""
        return [
            (place, outcome)
            for place, counts in sorted(self.branches.items())
            for outcome, count in zip(("true", "false"), counts, strict=True)
            if count == 0
        ]


def tool(name: str) -> str:
    """Returns the path of one of LLVM's tools: that of the compiler's version, if CXX names one."""
    version = re.search(r"-\d+$", os.environ.get("CXX", ""))
    for each in (name + (version[0] if version else ""), name):
        if shutil.which(each):
            return each
    sys.exit(f"{name} is missing: install LLVM's tools of the compiler's version")


def objects(build: Path) -> list[Path]:
    """Returns the executables and the extension of a build."""
    tests = [
        path
        for folder in ("tests/cpp", "tests/fuzz")
        for path in sorted((build / folder).iterdir())
        if path.is_file() and os.access(path, os.X_OK) and not path.suffix
    ]
    return [*tests, *sorted((build / "cpp").glob("_core*.so"))]


def is_branch(line: str, begin: int, end: int) -> bool:
    """Returns whether a condition of a line has two outcomes.

    Constants and parameters of templates have one. So has the default that the compiler adds to a
    switch over an enumeration: -Wswitch reports enumerators without a case.
    """
    constant = re.fullmatch(
        r"true|!?k[A-Z]\w*( != 0)?|std::is_\w+_v<\w+>", line[begin - 1 : end - 1]
    )
    return constant is None and not line[: begin - 1].endswith("switch (")


def export(build: Path, profiles: Iterable[Path]) -> dict[str, File]:
    """Returns the counts of each file of the core, by its path below it."""
    raw = [
        path
        for each in profiles
        for path in (sorted(each.glob("*.profraw")) if each.is_dir() else [each])
    ]
    merged = build / "merged.profdata"
    names = build / "profiles.txt"
    names.write_text("\n".join(map(str, raw)), encoding="utf-8")
    subprocess.run(
        [tool("llvm-profdata"), "merge", "-sparse", f"-input-files={names}", "-o", merged],
        check=True,
    )
    first, *others = objects(build)
    command = [tool("llvm-cov"), "export", "-instr-profile", merged, "-skip-expansions", first]
    for path in others:
        command += ["-object", path]
    done = subprocess.run([*command, CORE], check=True, capture_output=True, text=True)
    files: dict[str, File] = defaultdict(File)
    for entry in json.loads(done.stdout)["data"][0]["files"]:
        source = Path(entry["filename"]).read_text(encoding="utf-8").splitlines()
        file = files[str(Path(entry["filename"]).relative_to(CORE))]
        file.lines["all"] = entry["summary"]["lines"]["count"]
        file.lines["covered"] = entry["summary"]["lines"]["covered"]
        for *place, times_true, times_false, _, _, _ in entry["branches"]:
            if not is_branch(source[place[0] - 1], place[1], place[3]):
                continue
            found = file.branches.get(tuple(place), (0, 0))
            file.branches[tuple(place)] = (found[0] + times_true, found[1] + times_false)
    return files


def percent(covered: int, total: int) -> str:
    """Returns a percentage with a digit behind the point, rounded down."""
    return f"{covered * 1000 // total / 10:.1f} %" if total else "-"


def rows(files: dict[str, File]) -> dict[str, tuple[int, int, int, int]]:
    """Returns per folder, and for all limited ones: covered and all branches, and lines."""
    result: dict[str, tuple[int, int, int, int]] = {}
    for name, file in sorted(files.items()):
        uncovered, total = len(file.uncovered()), 2 * len(file.branches)
        counts = (total - uncovered, total, file.lines["covered"], file.lines["all"])
        folder = name.split("/")[0]
        for key in (folder, "limited") if folder in LIMITED else (folder,):
            before = result.get(key, (0, 0, 0, 0))
            result[key] = tuple(a + b for a, b in zip(before, counts, strict=True))  # type: ignore[assignment]
    return result


def cells(counts: tuple[int, int, int, int]) -> str:
    """Returns the cells of a table for branches and lines."""
    branches, lines = counts[:2], counts[2:]
    return f"{percent(*branches)} of {branches[1]:,} | {percent(*lines)} of {lines[1]:,}"


def write_page(name: str, table: dict[str, tuple[int, int, int, int]]) -> None:
    """Writes a column pair of the table in docs/reliability.md."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.check_output([*git, "rev-parse", "--short=12", "HEAD"], text=True).strip()
    if subprocess.check_output([*git, "status", "--porcelain", "cpp", "tests"], text=True):
        commit += ", with changes"
    today = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    old, tail = rest.split(END)
    columns = {
        row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:6]]
        for row in old.splitlines()
        if row.startswith("| `") or row.startswith("| the six")
    }
    first = 0 if name == "cpp" else 2
    lines = [
        BEGIN,
        f"{today}, commit {commit}.",
        "",
        "| folder | branches, C++ | lines, C++ | branches, with Python | lines, with Python |",
        "|---|---:|---:|---:|---:|",
    ]
    order = [*LIMITED, "limited", *sorted(set(table) - {*LIMITED, "limited"})]
    for key in order:
        title = "the six above" if key == "limited" else f"`{key}`"
        found = columns.get(title, ["-"] * 4)
        found[first : first + 2] = cells(table[key]).split(" | ")
        lines.append(f"| {title} | " + " | ".join(found) + " |")
    PAGE.write_text(head + "\n".join([*lines, END]) + tail, encoding="utf-8")


def main() -> int:
    """Prints the table. Returns 1 if the limited folders are below the limit."""
    parser = argparse.ArgumentParser(description="Report the coverage of the core.")
    parser.add_argument("build", type=Path)
    parser.add_argument("name", choices=["cpp", "python"])
    parser.add_argument("profiles", type=Path, nargs="+")
    parser.add_argument("--limit", type=float, default=0.0, help="per cent of the branches")
    parser.add_argument("--missing", action="store_true", help="list what no test has done")
    parser.add_argument("--record", action="store_true", help="write docs/reliability.md")
    args = parser.parse_args()
    files = export(args.build, args.profiles)
    table = rows(files)
    for key, counts in table.items():
        title = "+".join(LIMITED) if key == "limited" else key
        print(f"{title:32} branches {cells(counts).replace(' | ', '  lines ')}")
    if args.missing:
        for name, file in sorted(files.items()):
            source = (CORE / name).read_text(encoding="utf-8").splitlines()
            for (line, column, last, end), outcome in file.uncovered():
                text = source[line - 1][column - 1 : end - 1 if last == line else None]
                print(f"{name}:{line}: never {outcome}: {text}")
    if args.record:
        write_page(args.name, table)
    covered, total, _, _ = table["limited"]
    if covered * 100 < args.limit * total:
        print(f"less than {args.limit} % of the branches", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
