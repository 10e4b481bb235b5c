# SPDX-License-Identifier: Apache-2.0
"""Makes the links of the README absolute, and adds the project's URLs to pyproject.toml.

``python .ci/absolute_links.py https://github.com/OWNER/NAME v1.2.3`` changes both files in place.
The workflows of a release call it before they build: PyPI shows the README, where relative links
lead nowhere, and only these workflows know the address of the repository. Do not commit the result.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\((?!\w+:|#)([^)\s]+)\)")


def absolute(readme: str, repository: str, tag: str) -> str:
    """Returns a README whose relative links lead to files of a tag of the repository."""
    return _LINK.sub(rf"]({repository}/blob/{tag}/\1)", readme)


def urls(repository: str, tag: str) -> str:
    """Returns the table of URLs for pyproject.toml."""
    pages = {
        "Source": repository,
        "Documentation": f"{repository}/blob/{tag}/docs/index.md",
        "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }
    return "[project.urls]\n" + "".join(f'{name} = "{url}"\n' for name, url in pages.items())


def main(repository: str, tag: str) -> None:
    """Changes both files."""
    readme, project = ROOT / "README.md", ROOT / "pyproject.toml"
    readme.write_text(absolute(readme.read_text("utf-8"), repository, tag), "utf-8")
    with project.open("a", encoding="utf-8") as file:
        file.write(f"\n{urls(repository, tag)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
