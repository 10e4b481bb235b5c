# SPDX-License-Identifier: Apache-2.0
"""The command-line program, for `python -m tensorbundle`."""

from __future__ import annotations

import sys

from tensorbundle.cli import main

if __name__ == "__main__":
    sys.exit(main())
