# SPDX-License-Identifier: Apache-2.0
"""``tf.app`` and ``tf.flags`` of the stand-in, on absl; importing it needs absl-py.

They differ from absl as TensorFlow's do: ``FLAGS`` parses the command line when a flag is first
read; the ``DEFINE_`` functions also take the old keywords; ``run`` ignores unknown flags.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import absl.app
import absl.flags

# Flags belong to the module that defines them, not to the wrappers here.
absl.flags.disclaim_key_flags()

_OLD_KEYWORDS = {"flag_name": "name", "default_value": "default", "docstring": "help"}


class _ParsedFlags:
    """``absl.flags.FLAGS``, which parses the command line when a flag is first read."""

    def __getattr__(self, name: str) -> Any:
        values = absl.flags.FLAGS
        if not hasattr(type(values), name) and not values.is_parsed():
            values(sys.argv)
        return getattr(values, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(absl.flags.FLAGS, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(absl.flags.FLAGS, name)

    def __getitem__(self, name: str) -> Any:
        return absl.flags.FLAGS[name]

    def __iter__(self) -> Any:
        return iter(absl.flags.FLAGS)

    def __len__(self) -> int:
        return len(absl.flags.FLAGS)

    def __contains__(self, name: str) -> bool:
        return name in absl.flags.FLAGS

    def __dir__(self) -> list[str]:
        return dir(absl.flags.FLAGS)

    def __str__(self) -> str:
        return str(absl.flags.FLAGS)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return absl.flags.FLAGS(*args, **kwargs)


FLAGS = _ParsedFlags()


def _with_old_keywords(define: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(define)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return define(*args, **{_OLD_KEYWORDS.get(key, key): kwargs[key] for key in kwargs})

    return wrapper


def flags() -> dict[str, Any]:
    """Returns the public names of ``tf.flags``."""
    names = {name: getattr(absl.flags, name) for name in absl.flags.__all__}
    for kind in ("string", "boolean", "bool", "float", "integer"):
        name = f"DEFINE_{kind}"
        names[name] = _with_old_keywords(names[name])
    return {**names, "FLAGS": FLAGS}


def run(main: Callable[..., Any] | None = None, argv: list[str] | None = None) -> None:
    """Parses the flags, calls ``main`` with the other arguments, and exits.

    Args:
        main: The function; the script's ``main`` if None.
        argv: The command line; ``sys.argv`` if None.
    """
    function = main or sys.modules["__main__"].main
    absl.app.run(function, argv, flags_parser=_parse)


def _parse(argv: list[str] | None) -> Any:
    return absl.flags.FLAGS(sys.argv if argv is None else argv, known_only=True)
