# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's own tests that pass without tensorbundle also pass with it installed.

They are not in this repository. ``TENSORBUNDLE_UPSTREAM_TESTS`` names a directory that contains
them with the paths of TensorFlow's and Estimator's source trees
(``.../training/checkpoint_utils_test.py``).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("tensorflow")

VARIABLE = "TENSORBUNDLE_UPSTREAM_TESTS"


def _runner() -> ModuleType:
    """Imports `upstream` by its folder: pytest imports tests by file, not as a package."""
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        import upstream
    finally:
        sys.path.pop(0)
    return upstream


upstream = _runner()

# The end of a file's path, a filter on its tests, TF2 mode, and the functions that it must call.
FILES = [
    ("training/checkpoint_utils_test.py", "", False, {"init_from_checkpoint", "load_variable"}),
    ("training/checkpoint_utils_iterator_test.py", "", False, set()),
    ("training/warm_starting_util_test.py", "", False, {"warm_start", "init_from_checkpoint"}),
    ("distribute/checkpoint_utils_test.py", "", False, {"init_from_checkpoint"}),
    ("distribute/warm_starting_util_test.py", "", False, {"warm_start"}),
    ("checkpoint/checkpoint_management_test.py", "", False, {"NewCheckpointReader"}),
    ("checkpoint/checkpoint_view_test.py", "", True, {"NewCheckpointReader"}),
    ("checkpoint/checkpoint_test.py", "", True, {"NewCheckpointReader"}),
    ("training/saver_test.py", "CheckpointReader", False, {"NewCheckpointReader"}),
    ("estimator/estimator_test.py", "warm_start", False, {"warm_start"}),
    ("estimator/keras_test.py", "warm_start", False, {"warm_start"}),
    *(
        (f"canned/{name}.py", "WarmStart", False, {"warm_start"})
        for name in (
            "dnn_test_fc_v2",
            "dnn_estimator_test",
            "linear_test",
            "linear_estimator_test",
            "dnn_linear_combined_test",
            "v1/dnn_test_fc_v1_v1",
            "v1/dnn_test_fc_v2_v1",
            "v1/dnn_estimator_test_v1",
            "v1/linear_test_v1",
            "v1/dnn_linear_combined_test_v1",
        )
    ),
]
NEEDS_ESTIMATOR = ("estimator/", "canned/")


def _find(ending: str) -> Path:
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} does not name a directory with TensorFlow's tests")
    if ending.startswith(NEEDS_ESTIMATOR):
        pytest.importorskip("tensorflow_estimator", reason="no Estimator in this TensorFlow")
    found = sorted(Path(folder).glob(f"**/{ending}"))
    if not found:
        pytest.skip(f"no {ending} below {folder}")
    return found[0]


def _original(file: Path, **options: Any) -> Any:
    """Returns the report without tensorbundle. Skips a file for a newer TensorFlow than this."""
    report = upstream.run(file, **options)
    if report.missing:
        pytest.skip(f"{file}: {report.missing}")
    assert report.names("passed")
    assert not report.calls
    return report


@pytest.mark.slow
@pytest.mark.parametrize("name", ["checkpoint_utils_test", "warm_starting_util_test"])
def test_upstream_tests_pass_with_resource_variables(name: str) -> None:
    file = _find(f"training/{name}.py")
    original = _original(file, resource=True)
    patched = upstream.run(file, installed=True, resource=True)
    broken = original.names("passed") - patched.names("passed")
    assert not broken, "\n".join(patched.details.get(name, name) for name in sorted(broken))


@pytest.mark.slow
@pytest.mark.parametrize("op", ["stock", "absent"])
@pytest.mark.parametrize("name", ["checkpoint_utils_test", "warm_starting_util_test"])
def test_upstream_tests_pass_without_our_ops(name: str, op: str) -> None:
    report = upstream.run(_find(f"training/{name}.py"), installed=True, op=op)
    assert report.names("passed")
    assert not report.details, "\n".join(report.details.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "match", "tf2", "expected_calls"), FILES, ids=[f[0] for f in FILES]
)
def test_upstream_tests_pass_while_installed(
    ending: str, match: str, tf2: bool, expected_calls: set[str]
) -> None:
    file = _find(ending)
    original = _original(file, match=match, tf2=tf2)
    patched = upstream.run(file, installed=True, match=match, tf2=tf2)
    broken = original.names("passed") - patched.names("passed")
    assert not broken, "\n".join(patched.details.get(name, name) for name in sorted(broken))
    assert expected_calls <= patched.calls.keys()


# The end of a file's path, TF2 mode, and the ops that the kernels must serve.
KERNEL_FILES = [
    ("training/saver_test.py", False, {"RestoreV2"}),
    ("training/checkpoint_utils_test.py", False, {"RestoreV2"}),
    ("training/warm_starting_util_test.py", False, {"RestoreV2", "LoadAndRemapMatrix"}),
    ("training/checkpoint_ops_test.py", False, {"GenerateVocabRemapping", "LoadAndRemapMatrix"}),
    ("io_ops/save_restore_ops_test.py", True, {"RestoreV2"}),
    ("checkpoint/checkpoint_test.py", True, {"RestoreV2"}),
    ("checkpoint/functional_saver_test.py", True, {"RestoreV2"}),
    ("saved_model/load_test.py", True, {"RestoreV2"}),
    ("saved_model/load_v1_in_v2_test.py", True, {"RestoreV2"}),
    ("saved_model/loader_test.py", False, {"RestoreV2"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "tf2", "served"), KERNEL_FILES, ids=[f[0] for f in KERNEL_FILES]
)
def test_upstream_tests_pass_with_our_kernels(ending: str, tf2: bool, served: set[str]) -> None:
    file = _find(ending)
    original = _original(file, tf2=tf2)
    replaced = upstream.run(file, kernels=True, tf2=tf2)
    broken = original.names("passed") - replaced.names("passed")
    assert not broken, "\n".join(replaced.details.get(name, name) for name in sorted(broken))
    assert served <= replaced.calls.keys()
