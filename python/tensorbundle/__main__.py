# SPDX-License-Identifier: Apache-2.0
"""The command-line program, as a script and for `python -m tensorbundle`.

It needs click and rich, which the package itself does not: the extra ``cli`` installs them.
"""

from __future__ import annotations

import importlib.util
import sys


def main() -> int:
    """Runs the program with the arguments of the process. Returns the exit status."""
    missing = [name for name in ("click", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        packages = " and ".join(missing)
        print(  # noqa: T201
            f"tensorbundle: the command line needs {packages}: pip install 'tensorbundle[cli]'",
            file=sys.stderr,
        )
        return 2
    from tensorbundle.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
