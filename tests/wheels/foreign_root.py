# SPDX-License-Identifier: Apache-2.0
"""Unpacks Python, the C and the C++ library of Debian for another architecture into a folder.

``python foreign_root.py ARCHITECTURE FOLDER``: for emulators. Uses apt-get with a configuration of
its own: the packages and the settings of this system do not change. Does nothing if the folder
exists already.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} bookworm main"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = "libc6", "libgcc-s1", "libstdc++6", "libpython3-stdlib", "python3-minimal"


def download(architecture: str, work: Path) -> list[Path]:
    """Downloads the packages and what they depend on. Returns the files."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    (work / "sources.list").write_text(SOURCE.format(MIRROR) + "\n")
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures::": architecture,
        "APT::Install-Recommends": "false",
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
    }
    configuration = work / "apt.conf"
    lines = [
        "#clear APT::Architectures;",
        *(f'{key} "{value}";' for key, value in settings.items()),
    ]
    configuration.write_text("\n".join(lines) + "\n")
    environment = {**os.environ, "APT_CONFIG": str(configuration)}
    get = ["apt-get", "--quiet=2", "--yes", "--option", "Debug::NoLocking=true"]
    if os.geteuid() == 0:
        get += ["--option", "APT::Sandbox::User=root"]  # _apt may not write into the folder
    subprocess.run([*get, "update"], check=True, env=environment)
    subprocess.run([*get, "install", "--download-only", *PACKAGES], check=True, env=environment)
    return sorted((work / "cache" / "archives").glob("*.deb"))


def main() -> None:
    architecture, root = sys.argv[1], Path(sys.argv[2])
    if root.exists():
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as work:
        unpacked = Path(work, "root")
        packages = download(architecture, Path(work))
        for package in packages:
            subprocess.run(["dpkg-deb", "--extract", package, unpacked], check=True)
        shutil.move(unpacked, root)
    print(f"{len(packages)} packages for {architecture} in {root}")


if __name__ == "__main__":
    main()
