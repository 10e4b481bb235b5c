# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is never written over the files that it is made from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tensorbundle.filenames import check_not_source

FILES = ("index", "data-00000-of-00001")


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("ending", FILES)
def test_a_link_to_a_file_of_the_destination_is_the_source(
    link: object, ending: str, tmp_path: Path
) -> None:
    for each in FILES:
        (tmp_path / f"c.{each}").write_bytes(b"x")
    assert callable(link)
    link(tmp_path / f"c.{ending}", tmp_path / "link")
    with pytest.raises(ValueError, match="is the source"):
        check_not_source(str(tmp_path / "c"), [str(tmp_path / "absent"), str(tmp_path / "link")])


def test_other_files_are_not_the_source(tmp_path: Path) -> None:
    for name in ("c.index", "c.data-00000-of-00001", "d.index", "cc.index"):
        (tmp_path / name).write_bytes(b"x")
    check_not_source(str(tmp_path / "c"), [str(tmp_path / "d.index"), str(tmp_path / "cc.index")])
    check_not_source(str(tmp_path / "absent" / "c"), [str(tmp_path / "d.index")])
