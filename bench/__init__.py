# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: ours beside its rivals and a floor in C, in one run. See ``bench/README.md``."""
