# SPDX-License-Identifier: Apache-2.0
"""The plugin link next to TensorFlow: created, inspected and removed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import tensorbundle as tb
from tensorbundle import cli, plugin


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a package tensorflow, which must not be imported, and the op library."""
    site = tmp_path / "site"
    package = site / "tensorflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    library = tmp_path / "tensorbundle" / plugin.LIBRARY
    library.parent.mkdir()
    library.write_bytes(b"op library")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(plugin, "find_library", lambda: library)
    return site


def link_of(site: Path) -> Path:
    return site / "tensorflow-plugins" / plugin.LIBRARY


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    status = cli.main(["plugin", *args])
    out, err = capsys.readouterr()
    return status, out, err


def test_enable_and_disable_create_and_remove_link(site: Path) -> None:
    assert plugin.status().state == "disabled"
    now = plugin.enable()
    assert now.state == "enabled"
    assert now.link == link_of(site)
    assert link_of(site).is_symlink()
    assert link_of(site).read_bytes() == b"op library"
    assert plugin.enable() == now
    assert sorted(path.name for path in link_of(site).parent.iterdir()) == [plugin.LIBRARY]
    assert plugin.disable().state == "disabled"
    assert not link_of(site).parent.exists()
    assert plugin.disable().state == "disabled"


@pytest.mark.parametrize("other_exists", [True, False])
def test_enable_replaces_stale_link(site: Path, tmp_path: Path, other_exists: bool) -> None:
    other = tmp_path / "other" / plugin.LIBRARY
    if other_exists:
        other.parent.mkdir()
        other.write_bytes(b"other library")
    link_of(site).parent.mkdir()
    link_of(site).symlink_to(other)
    now = plugin.status()
    assert (now.state, now.target) == ("stale", str(other))
    assert plugin.enable().state == "enabled"
    link_of(site).unlink()
    link_of(site).symlink_to(other)
    assert plugin.disable().state == "disabled"
    assert other.exists() == other_exists


def test_foreign_file_is_not_replaced(site: Path) -> None:
    link_of(site).parent.mkdir()
    link_of(site).write_bytes(b"foreign file")
    assert plugin.status().state == "foreign"
    for change in (plugin.enable, plugin.disable):
        with pytest.raises(tb.UnsupportedError, match="not a link to tensorbundle's library"):
            change()
    assert link_of(site).read_bytes() == b"foreign file"


def test_disable_keeps_other_plugins(site: Path) -> None:
    plugin.enable()
    other = link_of(site).with_name("other.so")
    other.touch()
    plugin.disable()
    assert other.exists()


def test_enable_without_library_raises_not_found_error(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin.enable()
    monkeypatch.setattr(plugin, "find_library", lambda: None)
    assert plugin.status().state == "stale"
    with pytest.raises(tb.NotFoundError, match=r"built without libtensorbundle_tf\.so"):
        plugin.enable()
    assert plugin.disable().state == "disabled"


def test_enable_without_tensorflow_raises_not_found_error(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin.importlib.util, "find_spec", lambda name: None)
    assert plugin.status().state == "no tensorflow"
    for change in (plugin.enable, plugin.disable):
        with pytest.raises(tb.NotFoundError, match="TensorFlow is not installed"):
            change()


def test_plugin_commands_print_status(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "status") == (
        0,
        f"disabled\nlibrary\t{plugin.find_library()}\nlink\t{link_of(site)}\ntarget\tnone\n"
        "serves\tnone\n",
        "",
    )
    status, out, _ = run(capsys, "enable", "--json")
    assert status == 0
    assert json.loads(out) == {
        "state": "enabled",
        "library": str(plugin.find_library()),
        "link": str(link_of(site)),
        "target": str(plugin.find_library()),
        "serves": ["RestoreV2", "GenerateVocabRemapping", "LoadAndRemapMatrix"],
    }
    link_of(site).unlink()
    link_of(site).symlink_to("nowhere")
    status, out, _ = run(capsys, "status")
    assert status == 1
    assert out.startswith("stale\n")
    assert out.endswith("target\tnowhere\nserves\tnone\n")
    assert run(capsys, "disable")[0] == 0
    assert not link_of(site).exists()
    link_of(site).parent.mkdir()
    link_of(site).write_bytes(b"foreign file")
    status, out, err = run(capsys, "enable")
    assert (status, out) == (2, "")
    assert err.startswith("tensorbundle: ")
    assert len(err.splitlines()) == 1
    assert run(capsys, "status")[0] == 1


def test_show_versions_prints_plugin_state(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin.enable()
    tb.show_versions()
    (line,) = (row for row in capsys.readouterr().out.splitlines() if row.startswith("op library"))
    assert "loaded" in line
    assert str(plugin.find_library()) in line
    assert line.endswith("plugin enabled: it serves all scripts")
