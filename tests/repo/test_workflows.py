# SPDX-License-Identifier: Apache-2.0
"""The workflows: they run sessions that exist, pin their actions, and can only read by default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

WORKFLOWS = sorted((Path(__file__).parents[2] / ".github" / "workflows").glob("*.yml"))
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(repo, *parts):
    return repo.root.joinpath(*parts).read_text(encoding="utf-8")


def sessions(repo):
    source = read(repo, "noxfile.py")
    named = set(re.findall(r'^@nox.session\(name="([\w-]+)"', source, re.MULTILINE))
    return named | set(re.findall(r"^@nox.session\ndef (\w+)\(", source, re.MULTILINE))


def used_sessions(text):
    return set(re.findall(r"(?:- session:|nox -s) ([\w-]+)", text))


def test_workflows_are_found():
    names = {path.stem for path in WORKFLOWS}
    assert names == {"ci", "docs", "nightly", "release", "wheels"}


@each_workflow
def test_sessions_exist(repo, path):
    used = used_sessions(path.read_text(encoding="utf-8"))
    assert used
    assert used <= sessions(repo)


def test_sessions_that_sessions_queue_exist(repo):
    source = read(repo, "noxfile.py")
    queued = set(re.findall(r'session\.notify\("([\w-]+)"', source))
    assert {"old-processors", "tests"} <= queued <= sessions(repo)
    named = re.findall(r'"(tests/[\w/]+\.py)"', source)
    assert named
    assert not [name for name in named if not (repo.root / name).exists()]


@pytest.mark.parametrize("workflow", ["ci", "docs", "nightly", "release", "wheels"])
def test_sessions_of_each_workflow(repo, workflow):
    expected = {
        "ci": {"tests", "lint", "typing", "sanitize", "tf215", "tf_latest", "docs"},
        "docs": {"docs"},
        "nightly": {"deep", "mutants", "coverage"},
        "release": {"sdist"},
        "wheels": {"wheels", "aarch64"},
    }
    used = used_sessions(read(repo, ".github", "workflows", f"{workflow}.yml"))
    assert expected[workflow] <= used


@each_workflow
def test_actions_are_pinned_by_commit_and_name_their_version(path):
    """The tag of an action can be moved to other code."""
    lines = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
    pinned = re.compile(
        r"[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+|\./\.github/workflows/[\w-]+\.yml"
    )
    assert lines
    assert not [line for line in lines if not pinned.fullmatch(line)]


def test_an_action_has_one_version(repo):
    texts = [path.read_text(encoding="utf-8") for path in WORKFLOWS]
    pins = {pin for text in texts for pin in re.findall(r"uses: ([\w/-]+)@(\w+)", text)}
    assert len(pins) == len({action for action, _ in pins})


@each_workflow
def test_tokens_can_only_read_by_default(path):
    """Jobs that publish ask for more: only an identity to publish with, and pages."""
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^permissions:\n  contents: read\n(?! )", text, re.MULTILINE)
    written = set(re.findall(r"^ +([\w-]+): write$", text, re.MULTILINE))
    assert written == {"docs": {"pages", "id-token"}, "release": {"id-token"}}.get(path.stem, set())
    assert "secrets." not in text


def test_release_is_built_from_pinned_requirements(repo):
    project = read(repo, "pyproject.toml")
    (settings,) = re.findall(
        r"^\[tool\.cibuildwheel\]\n(.*?)^\[", project, re.MULTILINE | re.DOTALL
    )
    requirements = ".ci/build-requirements.txt"
    assert f"pip install --require-hashes -r {{project}}/{requirements}" in settings
    assert "--no-build-isolation" in settings
    source = read(repo, "noxfile.py")
    for session in ("def build_wheel(", "def sdist("):
        body = source.split(session)[1].split("\n\n\n")[0]
        assert f'session.install("--require-hashes", "-r", "{requirements}")' in body


def test_wheels_are_built_for_each_version_of_python(repo):
    project = read(repo, "pyproject.toml")
    (builds,) = re.findall(r"^build = \[(.*)\]$", project, re.MULTILINE)
    versions = re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', project)
    assert re.findall(r'"cp3(\d+)-\*"', builds) == versions
    (matrix,) = re.findall(r'python: (\["3\.1.*\])', read(repo, ".github", "workflows", "ci.yml"))
    assert re.findall(r'"3\.(\d+)"', matrix) == versions
