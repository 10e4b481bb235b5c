# SPDX-License-Identifier: Apache-2.0
"""A user without privileges, for tests of permissions: root may read and write everything."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534


@contextmanager
def normal_user() -> Iterator[Path]:
    """Runs the ``with`` statement as a normal user, as which it becomes for root.

    Yields a directory of that user, which other users may enter. Modules that the body needs must
    have been imported before: those of root may be in a directory that only root may read.
    """
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        if is_root:
            os.chown(folder, _NOBODY, _NOBODY)
            os.setegid(_NOBODY)
            os.seteuid(_NOBODY)
        try:
            yield Path(folder)
        finally:
            if is_root:
                os.seteuid(0)
                os.setegid(0)
