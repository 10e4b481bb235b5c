# SPDX-License-Identifier: Apache-2.0
"""Other formats: a module for each, with ``unsupported_reason``, ``write`` and ``read``."""
