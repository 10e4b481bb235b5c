# SPDX-License-Identifier: Apache-2.0
"""`python -m tensorbundle` is the command line program."""

from __future__ import annotations

import sys

from tensorbundle.cli import main

if __name__ == "__main__":
    sys.exit(main())
