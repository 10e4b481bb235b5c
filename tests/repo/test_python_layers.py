# SPDX-License-Identifier: Apache-2.0
"""The package's modules follow the layer order in their imports (docs/architecture.md)."""

import ast

# A module may import from its own layer and from the layers listed before it.
LAYERS = [
    {"_core", "errors"},
    {"error_classes"},
    {"arguments", "dtypes", "filenames", "indexing", "naming", "object_graph", "plugin"},
    {"casts", "load_plan", "rules", "slots", "path_errors", "tables", "text_format", "version"},
    {"renaming", "state", "variables"},
    {"paths"},
    {"remote"},
    {"alignment", "dlpack", "gather", "remap", "streaming"},
    {"explain", "summary", "torch_tensors", "verification"},
    {"tensor"},
    {"blocks", "checkpoint"},
    {"compat", "load_source", "planned_tensor", "vocab", "writer"},
    {"assignment", "keras_weights"},
    {"value_diff", "diff_report"},
    {"averaging", "comparison", "edit_plan", "formats", "tensor_stats"},
    {"editing"},
    {"conversion"},
    {"strict_reader", "vocab_diagnosis", "warm_plan"},
    {"tensorflow_api"},
    {"stand_in"},
    {"tf"},
    {"__init__"},
    {"terminal"},
    {"cli_options"},
    {"cli_check", "cli_ls", "cli_system", "cli_write"},
    {"cli_show"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
# Third-party packages, and the modules that may import them.
ONLY_IN = {
    "tensorflow": {"tf"},
    "click": {
        "cli",
        "cli_check",
        "cli_ls",
        "cli_options",
        "cli_show",
        "cli_system",
        "cli_write",
        "terminal",
    },
    "rich": {"terminal"},
    "fsspec": {"remote"},
    "requests": {"remote"},
    "h5py": {"formats"},
    "keras": {"keras_weights"},
    "pyarrow": {"formats"},
    "argparse": set(),
    "absl": {"tensorflow_api"},
    "torch": {"torch_tensors"},
    "jax": set(),
    "dask": set(),
    "ray": set(),
}


def modules(repo):
    """Yields (top-level name, path) of the package's modules."""
    package = repo.root / "python" / "tensorbundle"
    for path in repo.sources(".py", under="python/tensorbundle"):
        yield path.relative_to(package).parts[0].removesuffix(".py"), path


def imports(path):
    """Yields every dotted name that a module imports, including TYPE_CHECKING imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name):
    """Returns the module of the package that a dotted name refers to, or None."""
    parts = name.split(".")
    if parts[0] != "tensorbundle":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in RANK else "__init__"


def test_every_module_has_a_layer(repo):
    unknown = {name for name, _ in modules(repo)} - set(RANK)
    assert not unknown, f"add them to LAYERS and to docs/architecture.md: {unknown}"


def test_imports_follow_layer_order(repo):
    wrong = [
        f"{repo.name(path)} imports {name}"
        for module, path in modules(repo)
        if module != "__init__"
        for name in imports(path)
        if (other := own(name)) is not None and RANK[other] > RANK[module]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_two_modules_import_each_other(repo):
    edges = {
        (module, other)
        for module, path in modules(repo)
        for name in imports(path)
        if (other := own(name)) not in (None, module)
    }
    cycles = {edge for edge in edges if edge[::-1] in edges and edge != ("__init__", "tf")}
    assert not cycles


def test_restricted_packages_are_imported_only_where_allowed(repo):
    wrong = [
        f"{repo.name(path)} imports {name}"
        for module, path in modules(repo)
        for name in imports(path)
        if module not in ONLY_IN.get(name.split(".")[0], {module})
    ]
    assert not wrong, "\n".join(wrong)


def needs_tensorflow(statement):
    """Says whether a statement imports TensorFlow, or a module that does."""
    if isinstance(statement, ast.ImportFrom):
        return (statement.module or "").startswith(("tensorflow", "tensorbundle.tf."))
    return isinstance(statement, ast.Import) and any(
        alias.name.startswith(("tensorflow", "tensorbundle.tf.")) for alias in statement.names
    )


def test_test_modules_are_skipped_without_tensorflow(repo):
    wrong = []
    for path in repo.sources(".py", under="tests"):
        if not path.name.startswith("test_"):
            continue
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if 'importorskip("tensorflow")' in ast.unparse(statement).replace("'", '"'):
                break
            if needs_tensorflow(statement):
                wrong.append(f"{repo.name(path)}:{statement.lineno}: comes before importorskip")
    assert not wrong, "\n".join(wrong)
