# SPDX-License-Identifier: Apache-2.0
"""A file that changes while others read it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path


class Changer:
    """A thread that replaces the contents of a file by others in turn, in a ``with`` statement.

    ``how``: "renamed": by renaming another file. "overwritten": in place. "truncated": in place,
    after the file was truncated, as ``cp`` does.
    """

    def __init__(self, path: Path, contents: list[bytes], how: str) -> None:
        self._path, self._contents, self._how = path, contents, how
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.changes = 0

    def _run(self) -> None:
        while not self._done.is_set():
            content = self._contents[self.changes % len(self._contents)]
            if self._how == "renamed":
                aside = self._path.with_name(self._path.name + ".aside")
                aside.write_bytes(content)
                os.replace(aside, self._path)
            else:
                mode = "wb" if self._how == "truncated" else "r+b"
                with open(self._path, mode, buffering=0) as file:
                    for start in range(0, len(content), 300_000):
                        file.write(content[start : start + 300_000])
                        time.sleep(0)
            self.changes += 1
            time.sleep(0.001)

    def __enter__(self) -> Changer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
