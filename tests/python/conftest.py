# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the tests without TensorFlow."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# For `nox -s sanitize-python`, which is slow: --hypothesis-profile=slow.
settings.register_profile("slow", deadline=None, suppress_health_check=[HealthCheck.too_slow])

# A job in the background ignores Ctrl-C, and so do the processes that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Tests that `nox -s sanitize-python` leaves out (`-m "not unsanitized"`), by reason: the name of a
# module, and the beginning of the names of its tests.
UNSANITIZED = {
    "measures memory, of which the sanitizers use much more": [
        ("align_errors", "test_memory_is_independent"),
        ("average", "test_memory_is_bounded"),
        ("convert", "test_memory_does_not_depend"),
        ("diff", "test_memory_is_bounded"),
        ("edit_memory", "test_memory_is_bounded"),
        ("open_cost", "test_peak_memory"),
        ("process_lifetimes", "test_thousands_of"),
        ("stream_checkpoint", "test_memory_is_bounded"),
        ("streaming", "test_peak_memory"),
    ],
    "limits the address space, of which the sanitizers reserve terabytes": [
        ("incomplete_tensors", "test_huge_missing_elements"),
        ("private_views", "test_falls_back_to_shared_mappings"),
        ("regressions", "test_exhausted_address_space"),
    ],
    "preloads another library, and replaces malloc": [
        ("out_of_memory", "test_failed_allocation"),
        ("process_lifetimes", "test_many_forks_while_threads_start"),
    ],
    "leaves no descriptor, of which UBSan needs two to examine an object": [
        ("system_errors", "test_too_many_open_files"),
        ("system_errors", "test_cli_distinguishes"),
    ],
    "forks while other threads run: in the child, the sanitizer's allocator stays locked, and new "
    "mappings have its marks of the other threads' stacks": [
        ("process_lifetimes", "test_fork_in_the_middle"),
    ],
    "lists the libraries that the op library needs": [
        ("op_library_file", "test_library_depends_only_on_c_library"),
    ],
    "measures times": [
        ("missing_names", "test_message_suggests_nearest_name_quickly"),
        ("missing_names", "test_name_without_near_match_fails_quickly"),
        ("path_advice", "test_error_in_large_directory_is_fast"),
        ("signals", "test_"),
        ("state_text", "test_crafted_text_fails_quickly"),
        ("state_text", "test_parses_megabyte_in_linear_time"),
        ("threads", "test_long_calls_release_the_gil"),
    ],
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        module = item.path.stem.removeprefix("test_")
        for reason, tests in UNSANITIZED.items():
            if any(module == name and item.name.startswith(start) for name, start in tests):
                item.add_marker(pytest.mark.unsanitized(reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Makes a skipped test fail, where everything that tests need should be installed."""
    report = yield
    if (
        report.skipped
        and os.environ.get("TENSORBUNDLE_NO_SKIP")
        and not hasattr(report, "wasxfail")
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped, which TENSORBUNDLE_NO_SKIP forbids: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    """The directory of checkpoints written by TensorFlow."""
    return Path(__file__).parents[1] / "data" / "checkpoints"
