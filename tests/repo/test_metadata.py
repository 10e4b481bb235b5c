# SPDX-License-Identifier: Apache-2.0
"""The version is written in one place, and CI runs the commands of the README."""

import importlib.util
import re
import subprocess
import sys

import pytest

import tensorbundle


def project_version(repo):
    text = (repo.root / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'^version = "([^"]+)"$', text, re.MULTILINE).group(1)


def readme(repo):
    return (repo.root / "README.md").read_text(encoding="utf-8")


def blocks(text, language):
    """Returns the fenced blocks of a Markdown text."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_installed_version_equals_project_version(repo):
    assert tensorbundle.__version__ == project_version(repo)


def test_version_is_written_in_one_place(repo):
    version = project_version(repo)
    repeated = [
        repo.name(path)
        for path in [
            *repo.sources(".py", ".pyi", ".h", ".cc"),
            repo.root / "CMakeLists.txt",
            repo.root / "cpp" / "CMakeLists.txt",
        ]
        if re.search(rf"(?<![\w.]){re.escape(version)}(?![\w.])", path.read_text(encoding="utf-8"))
    ]
    assert not repeated


def test_ci_runs_both_readme_commands(repo):
    commands = [line for block in blocks(readme(repo), "sh") for line in block.splitlines()]
    assert commands[:2] == [
        "pip install . && python examples/read_without_tensorflow.py",
        "pip install '.[test]' && pytest -n 2",
    ]
    ci = (repo.root / ".ci" / "run").read_text(encoding="utf-8")
    lines = [line.strip() for line in ci.splitlines()]
    assert all(command in lines for command in commands[:2])


def test_build_downloads_nothing(repo):
    text = "".join(
        path.read_text(encoding="utf-8")
        for path in repo.files()
        if path.name == "CMakeLists.txt" or path.suffix == ".cmake"
    )
    assert "find_package(pybind11" in text
    for command in ("FetchContent", "ExternalProject", "DOWNLOAD", "git clone", "curl"):
        assert command not in text


def test_release_pins_every_build_requirement_with_hashes(repo):
    text = (repo.root / ".ci" / "build-requirements.txt").read_text(encoding="utf-8")
    pinned = re.findall(
        r"^([a-z0-9-]+)==[^\\]*\\\n +--hash=sha256:[0-9a-f]{64}", text, re.MULTILINE
    )
    assert len(pinned) == len(re.findall(r"^[a-z]", text, re.MULTILINE))
    project = (repo.root / "pyproject.toml").read_text(encoding="utf-8")
    required = re.search(r"^requires = \[(.*)\]$", project, re.MULTILINE).group(1)
    assert {*re.findall(r'"([a-z0-9-]+)', required), "cmake", "ninja"} <= set(pinned)


def test_limits_of_the_security_notes_are_where_they_say(repo):
    text = (repo.root / "SECURITY.md").read_text(encoding="utf-8")
    places = re.findall(r"\| `([\w/.]+)`, `(\w+)` \|$", text, re.MULTILINE)
    assert len(places) > 9
    for file, name in places:
        folder = "python/tensorbundle" if file.endswith(".py") else "cpp/tensorbundle"
        source = (repo.root / folder / file).read_text(encoding="utf-8")
        assert re.search(rf"\b{name} ?[={{]", source), (file, name)


def test_readme_example_runs(repo):
    (example, *_) = blocks(readme(repo), "python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=repo.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_document_links_exist(repo):
    broken = [
        f"{repo.name(path)} -> {target}"
        for path in repo.files()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
        if not target.startswith(("http:", "https:", "mailto:"))
        and not (path.parent / target).exists()
    ]
    assert not broken


def absolute_links(repo):
    """Returns the module .ci/absolute_links.py."""
    path = repo.root / ".ci" / "absolute_links.py"
    spec = importlib.util.spec_from_file_location("absolute_links", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_of_a_released_readme_are_absolute_and_lead_to_files(repo):
    base = "https://example.org/owner/name"
    text = absolute_links(repo).absolute(readme(repo), base, "v1.2.3")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 10
    assert all(link.startswith("https://") for link in links)
    ours = [link for link in links if link.startswith(base)]
    assert all(link.startswith(f"{base}/blob/v1.2.3/") for link in ours)
    for link in ours:
        path = link.removeprefix(f"{base}/blob/v1.2.3/").partition("#")[0]
        assert (repo.root / path).is_file(), link


def test_released_metadata_has_urls(repo):
    toml = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    text = (repo.root / "pyproject.toml").read_text(encoding="utf-8")
    released = toml.loads(text + absolute_links(repo).urls("https://example.org/o/n", "v1.2.3"))
    assert released["project"]["urls"]["Source"] == "https://example.org/o/n"
    assert "urls" not in toml.loads(text)["project"]  # the repository has no address of its own


def test_both_workflows_of_a_release_make_links_absolute(repo):
    for name in ("release.yml", "wheels.yml"):
        text = (repo.root / ".github" / "workflows" / name).read_text(encoding="utf-8")
        assert 'python .ci/absolute_links.py "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY"' in text
