# SPDX-License-Identifier: Apache-2.0
"""Checkpoint writers for the tests, independent of the code under test.

Nothing here imports ``tensorbundle``. Messages go through the ``protobuf`` library, checksums
through ``google-crc32c``, compression through ``cramjam``; the rest follows the format document.
"""
