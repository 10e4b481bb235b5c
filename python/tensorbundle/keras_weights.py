# SPDX-License-Identifier: Apache-2.0
"""The weights of Keras 3 models from checkpoints, with any backend: ``load_keras``.

A variable of the model is matched with a tensor of the checkpoint in one of two ways:

=========  =====================================================================================
name       the variable's path, ``dense/kernel``, is the tensor's key, its key without
           ``/.ATTRIBUTES/VARIABLE_VALUE``, or its full name in the object graph
structure  the object graph and the model are followed from object to object by the names of
           their attributes, as TensorFlow does: ``model/layer_with_weights-0/kernel``
=========  =====================================================================================

Keras numbers the default names of layers by process (``dense``, ``dense_1``), so the names of two
equal models may differ. Then only the structure is right. A SavedModel of Keras 3's ``export`` has
no layers, only lists of variables, whose positions are then the structure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tensorbundle import casts, dtypes, naming, object_graph
from tensorbundle.arguments import OnProblem
from tensorbundle.checkpoint import Checkpoint, opened
from tensorbundle.errors import Error, ProblemsError, TensorNotFoundError
from tensorbundle.filenames import AnyPath
from tensorbundle.load_plan import (
    LoadReport,
    Policy,
    Problem,
    Row,
    Stored,
    build_report,
    can_cast,
    format_list,
    type_text,
)
from tensorbundle.naming import OBJECT_GRAPH
from tensorbundle.renaming import Names, Rename, Renaming
from tensorbundle.variables import Variable, compare

_MATCHES = ("name", "structure")
# Keras 2 numbered the layers of a model, and apart from that those with weights.
_NUMBERED_LAYER = re.compile(r"(layer|layer_with_weights)-(\d{1,9})")
# Lists of all variables of an object: their order may differ between versions of Keras.
_LIST_OF_VARIABLES = re.compile(r".*(variables|weights)")
_OPTIMIZER = re.compile(r"_?optimizer")


class LoadError(ProblemsError):
    """A checkpoint cannot be loaded into a model as requested. No variable has changed.

    Attributes:
        problems: All problems, one sentence each.
    """

    def _text(self, listed: Sequence[str]) -> str:
        title = f"{self.path!r} cannot be loaded into the model; problems"
        return format_list(title, listed, len(self.problems))


def load_keras(
    model: Any,
    path: AnyPath | Checkpoint,
    *,
    by: Literal["name", "structure"] | None = None,
    rename: Rename | None = None,
    missing: OnProblem = "raise",
    mismatch: OnProblem = "raise",
    cast: bool = False,
) -> LoadReport:
    """Loads a TensorFlow checkpoint into the weights of a Keras 3 model, with any backend.

    The checkpoint may have any origin: ``save_weights`` of tf.keras, ``tf.train.Checkpoint``, a
    SavedModel, an Estimator, ``tensorbundle.save``. Everything that is wrong is found, and all
    values are read and compared with their checksums, before a variable changes; until the last one
    is assigned, the values take their size in memory once more. State of metrics, optimizers and
    seed generators is not loaded. TensorFlow is not needed.

    Args:
        model: A ``keras.Model`` or ``keras.layers.Layer`` that has been built.
        path: As for ``tensorbundle.open``; or an open checkpoint, which stays open.
        by: ``"name"``: a variable's path, with or without the model's name at its beginning, is the
            key of a tensor, its key without ``/.ATTRIBUTES/VARIABLE_VALUE``, or its full name in
            the object graph. ``"structure"``: the object graph is compared with the model's layers
            and attributes. Default: the names, unless they do not find all variables and the
            structure finds more; if both find all, but different tensors, LoadError is raised.
        rename: New names of the checkpoint's tensors, which then are compared with paths: a mapping
            from keys or full names, a sequence of (regular expression, replacement), or a callable
            from str to str, as for ``tensorbundle.edit``. Implies ``by="name"``.
        missing: ``"skip"`` skips variables whose tensor is not in the checkpoint.
        mismatch: ``"skip"`` skips variables that differ from their tensor in shape or type.
        cast: Whether values are converted between float types. Other types are never converted.

    Returns:
        The variables that were loaded, by path; those that were skipped; and the unused tensors.

    Raises:
        LoadError: Tensors are missing or ambiguous, or shapes or types differ. The message has all
            problems. A ValueError.
        Error: The checkpoint cannot be opened, or a tensor cannot be read.
        ImportError: Keras 3 is not installed (``pip install 'tensorbundle[keras]'``).
        TypeError: `model` or another argument has the wrong type.
        ValueError: The model has not been built; an option is invalid.

    Examples:
        >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10, name="logits")])
        >>> report = tb.load_keras(model, "model.ckpt-1000", rename=[("^mnist/", "")])
        >>> report.loaded
        {'sequential/logits/kernel': 'mnist/logits/kernel', ...}
    """
    policy = Policy(missing, mismatch, cast)
    if by is not None and by not in _MATCHES:
        raise ValueError(f"by must be 'name', 'structure' or None, not {by!r}")
    if by == "structure" and rename is not None:
        raise ValueError("rename needs names: it cannot be used with by='structure'")
    renaming = Renaming(rename)
    keras = _import_keras()
    weights = _weights_of(model, keras)
    with opened(path) as checkpoint:
        matcher = _Matcher(keras, model, weights, checkpoint)
        found = matcher.find("name" if rename is not None else by, renaming)
        rows = [
            _row(weight, match, checkpoint, policy)
            for weight, match in zip(weights, found, strict=True)
        ]
        problems = [f"rename: no tensor has the name {name!r}" for name in renaming.absent]
        problems += [
            f"variable {row.variable!r}: {row.problem}"
            for row in rows
            if row.problem is not None and not policy.skips(row.problem)
        ]
        if problems:
            raise LoadError(checkpoint.path, problems)
        loaded = [row for row in rows if row.is_loaded]
        values = checkpoint.load(row.load for row in loaded)
        for row in loaded:
            row.handle.assign(_value(values[row.load], row.handle))
        used = {OBJECT_GRAPH, *values}
        return build_report(rows, tuple(key for key in checkpoint if key not in used))


def _import_keras() -> Any:
    try:
        import keras
    except ModuleNotFoundError as error:
        if error.name != "keras":  # the backend
            raise
        raise ImportError(
            "load_keras needs Keras 3: pip install 'tensorbundle[keras]', and a backend"
        ) from None
    version = str(getattr(keras, "__version__", "3"))
    if version.startswith(("0.", "1.", "2.")):
        raise ImportError(
            f"load_keras needs Keras 3, not {version}: pip install 'tensorbundle[keras]'. "
            "init_from_checkpoint loads variables of Keras 2"
        )
    return keras


def _weights_of(model: Any, keras: Any) -> list[Any]:
    """Returns the variables to load, without duplicates.

    Raises:
        TypeError: `model` is not a layer of Keras 3.
        ValueError: It has not been built.
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(
            f"model must be a layer or a model of Keras 3, not {type(model).__module__}."
            f"{type(model).__qualname__}"
        )
    if not model.built or not model.weights:
        raise ValueError(
            f"model {model.name!r} has no variables, probably because it has not been built: call "
            "it on an input, or call its build method, before you load weights"
        )
    return list({id(weight): weight for weight in model.weights}.values())


# The key of a tensor, or the problem that prevents a match.
_Match = str | Problem


class _Matcher:
    """Finds the tensor of each variable, by name or by structure."""

    def __init__(
        self, keras: Any, model: Any, weights: Sequence[Any], checkpoint: Checkpoint
    ) -> None:
        self._keras = keras
        self._model = model
        self._weights = weights
        self._checkpoint = checkpoint

    def find(self, by: str | None, renaming: Renaming) -> list[_Match]:
        """Returns the match of each variable."""
        if by == "structure":
            return self._by_structure()
        named = self._by_name(renaming)
        if by == "name" or OBJECT_GRAPH not in self._checkpoint:
            return named
        structural = self._by_structure()
        counts = [sum(isinstance(match, str) for match in way) for way in (named, structural)]
        if counts[0] == counts[1] == len(self._weights):
            return [
                name if name == place else _conflict(name, place)
                for name, place in zip(named, structural, strict=True)
            ]
        return structural if counts[1] > counts[0] else named

    def _by_name(self, renaming: Renaming) -> list[_Match]:
        # By key, by key without its ending, by full name: the first that has the name counts.
        tables: tuple[dict[str, list[str]], ...] = ({}, {}, {})
        full_names = self._checkpoint.full_names
        for key in self._checkpoint:
            if key == OBJECT_GRAPH:
                continue
            names = renaming.each_name(Names.of(key, full_names.get(key)))
            for table, name in zip(tables, names, strict=True):
                if name is not None:
                    table.setdefault(name, []).append(key)
        counts = Counter(weight.path for weight in self._weights)
        known = list(dict.fromkeys(name for table in tables for name in table))
        return [
            _same_path(weight.path)
            if counts[weight.path] > 1
            # The search for the nearest names is slow.
            else self._look_up(weight.path, tables, known if number < LoadError.MAX_LISTED else [])
            for number, weight in enumerate(self._weights)
        ]

    def _look_up(
        self, path: str, tables: Sequence[Mapping[str, Sequence[str]]], known: list[str]
    ) -> _Match:
        short = path.removeprefix(f"{self._model.name}/")
        for name in dict.fromkeys((path, short)):
            for table in tables:
                keys = table.get(name, ())
                if len(keys) > 1:
                    return Problem.from_error(
                        naming.ambiguous_name_error(name, keys, self._checkpoint.path)
                    )
                if keys:
                    return keys[0]
        return Problem("missing", lambda: _not_found(short, known))

    def _by_structure(self) -> list[_Match]:
        keys = self._keys_by_structure()
        return [
            keys.get(id(weight)) or Problem("missing", _not_in_graph) for weight in self._weights
        ]

    def _keys_by_structure(self) -> dict[int, str]:
        """Returns the keys of variables by their identity.

        The model is the root of the graph, or an attribute of the root, as in
        ``tf.train.Checkpoint(model=model)``: the one that has the most of its variables.
        """
        graph = self._checkpoint.get(OBJECT_GRAPH)
        if graph is None or graph.stored_dtype != "string" or graph.shape:
            return {}
        try:
            nodes = object_graph.decode(graph.read())
        except ValueError as error:
            if isinstance(error, Error):
                raise
            return {}
        if not nodes:
            return {}
        roots = {0: None} | {
            node: None
            for name, node in nodes[0].children.items()
            if not _OPTIMIZER.fullmatch(name) and 0 <= node < len(nodes)
        }
        found = max((self._follow(nodes, root) for root in roots), key=len)
        return found or self._follow_positions(nodes)

    def _follow(self, nodes: Sequence[object_graph.Node], root: int) -> dict[int, str]:
        wanted = {id(weight) for weight in self._weights}
        keys: dict[int, str] = {}
        pairs: list[tuple[int, Any]] = [(root, self._model)]
        seen = {(root, id(self._model))}
        while pairs:
            number, thing = pairs.pop()
            for name, child in nodes[number].children.items():
                value = self._attribute(thing, name)
                if value is None or not 0 <= child < len(nodes) or (child, id(value)) in seen:
                    continue
                seen.add((child, id(value)))
                key = nodes[child].key
                if id(value) not in wanted:
                    pairs.append((child, value))
                elif key is not None and key in self._checkpoint:
                    keys.setdefault(id(value), key)
        return keys

    def _follow_positions(self, nodes: Sequence[object_graph.Node]) -> dict[int, str]:
        """Returns the keys in a SavedModel of ``model.export``, which only has lists of variables.

        Returns no key if the numbers of variables differ.
        """
        wanted = {id(weight) for weight in self._weights}
        keys: dict[int, str] = {}
        for name in ("trainable_variables", "non_trainable_variables"):
            variables = getattr(self._model, name)
            number = nodes[0].children.get(name, -1)
            children = nodes[number].children if 0 <= number < len(nodes) else {}
            if len(children) != len(variables):
                return {}
            for position, variable in enumerate(variables):
                child = children.get(str(position), -1)
                key = nodes[child].key if 0 <= child < len(nodes) else None
                if key is not None and key in self._checkpoint and id(variable) in wanted:
                    keys[id(variable)] = key
        return keys

    def _attribute(self, thing: Any, name: str) -> Any:
        """Returns the layer, variable or container that is an object's child of that name."""
        numbered = _NUMBERED_LAYER.fullmatch(name)
        if isinstance(thing, Mapping):
            found = thing.get(name)
        elif isinstance(thing, (list, tuple)):
            index = int(name) if name.isdecimal() and len(name) < 10 else len(thing)
            found = thing[index] if index < len(thing) else None
        elif numbered is not None:
            layers = getattr(thing, "layers", ())
            if numbered[1] == "layer_with_weights":
                layers = [layer for layer in layers if layer.weights]
            found = layers[int(numbered[2])] if int(numbered[2]) < len(layers) else None
        elif _LIST_OF_VARIABLES.fullmatch(name):
            found = None
        else:
            own = _own_attributes(thing)
            bare = name.lstrip("_")
            found = next((own[each] for each in (name, bare, f"_{bare}") if each in own), None)
        kinds = (self._keras.Operation, self._keras.Variable, list, tuple, Mapping)
        return found if isinstance(found, kinds) else None


def _own_attributes(thing: Any) -> Mapping[str, Any]:
    """Returns the attributes of an object, without calling its properties."""
    own: dict[str, Any] = dict(getattr(thing, "__dict__", {}))
    # PyTorch, if it is the backend, keeps layers apart.
    return {**own.get("_modules", {}), **own}


def _row(weight: Any, match: _Match, checkpoint: Checkpoint, policy: Policy) -> Row:
    dtype = _type_number(weight)
    shape = tuple(int(size) for size in weight.shape)
    if isinstance(match, Problem):
        return Row(weight.path, weight.path, None, shape, dtype, "", match, handle=weight)
    found = checkpoint._require(match)
    stored = Stored(found.name, found.shape, found.type_number)
    variable = Variable(weight.path, shape, None, weight, dtype)
    problem = compare(variable, None, stored, match, repr(checkpoint.path), policy.cast)
    if problem is not None:
        problem = Problem(problem.kind, lambda: ValueError(_difference(stored, shape, dtype)))
    return Row(weight.path, match, stored, shape, dtype, "loaded", problem, match, weight)


def _difference(stored: Stored, shape: tuple[int, ...], dtype: int | None) -> str:
    """Describes a tensor and a variable that differ."""
    text = (
        f"it is {type_text(dtype)} {list(shape)}, but tensor {stored.key!r} is "
        f"{type_text(stored.dtype)} {list(stored.shape)}"
    )
    is_cast = stored.shape == shape and can_cast(stored.dtype, dtype)
    return f"{text}; cast=True converts it" if is_cast else text


def _type_number(weight: Any) -> int | None:
    """Returns the number of a variable's type; None, which equals all, if TensorFlow lacks it."""
    dtype = dtypes.find(str(weight.dtype))
    try:
        return None if dtype is None else dtypes.number_of(dtype)
    except TypeError:
        return None


def _value(value: Any, weight: Any) -> Any:
    """Converts a float value to the type of its variable; others have that type already."""
    wanted = dtypes.find(str(weight.dtype))
    return value if wanted is None or value.dtype == wanted else casts.cast(value, wanted)


def _conflict(name: _Match, place: _Match) -> Problem:
    return Problem.from_error(
        ValueError(
            f"its name is that of tensor {name!r}, but the object graph has {place!r} at its "
            "place: give by='name' or by='structure'"
        )
    )


def _same_path(path: str) -> Problem:
    return Problem.from_error(
        ValueError(
            f"several variables of the model have the path {path!r}: give their layers different "
            "names, or by='structure'"
        )
    )


def _not_found(name: str, names: list[str]) -> Exception:
    near = naming.nearest(name, names)
    hint = f"; the nearest names are {', '.join(map(repr, near))}" if near else ""
    return TensorNotFoundError(f"the checkpoint has no tensor {name!r}{hint}")


def _not_in_graph() -> Exception:
    return TensorNotFoundError("the object graph has no tensor at its place in the model")
