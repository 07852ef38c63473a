"""Rules of the source (CONTRIBUTING.md), read from all modules of the three packages."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from source_tree import ROOT, absolute, modules, source, tree

LONGEST = 350
REPEATED = frozenset(
    {"__init__", "__main__", "options", "factory", "backend", "config", "builder", "learner", "networks", "campaign"}
    | {"twin", "rules"}
)
"""Names that a module may share with a module of another package, and, in CamelCase, a class with another class."""

FOREIGN: Mapping[str, frozenset[str]] = {
    "rlctl.cli.main": frozenset({"ctx"}),  # errors of click
    "rlctl.core.json_values": frozenset({"tolist"}),  # arrays and numbers of NumPy, which is not loaded for them
    "rlctl.core.spec_values": frozenset({"dtype", "ndim", "tolist"}),
    "rlctl.environments.checked_env": frozenset({"item", "shape", "start"}),  # what environments of users return
    "rlctl.executors.functions.large_results": frozenset({"dtype"}),
    "rlctl.executors.parsl.blocks": frozenset({"launcher", "resources", "stderr_path"}),  # Parsl's providers and jobs
    "rlctl.executors.parsl.factory": frozenset({"executors", "label", "submit"}),
    "rlctl.system.crash_report": frozenset({"name"}),  # specs of modules
}
"""Optional attributes of other libraries' objects that a module asks for, by module."""


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def test_no_file_is_longer_than_one_subject() -> None:
    lengths = {module: len(source(module).splitlines()) for module in modules()}
    assert not (found := [f"{module}: {lines} lines" for module, lines in lengths.items() if lines > LONGEST]), (
        "\n".join(found)
    )


def test_core_itself_imports_nothing() -> None:
    assert not [node for node in ast.walk(tree("rlctl.core")) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_names_of_modules_are_unique() -> None:
    homes = defaultdict(list)
    for module, path in modules().items():
        homes[path.stem].append(module)
    assert not (
        found := [f"{name}: {', '.join(at)}" for name, at in homes.items() if len(at) > 1 and name not in REPEATED]
    ), "\n".join(found)


# Classes


@functools.cache
def classes() -> dict[str, ast.ClassDef]:
    """All classes by their full names, those inside others and inside functions too."""

    def within(prefix: str, node: ast.AST) -> Iterator[tuple[str, ast.ClassDef]]:
        for child in ast.iter_child_nodes(node):
            name = f"{prefix}.{child.name}" if isinstance(child, ast.ClassDef | ast.FunctionDef) else prefix
            if isinstance(child, ast.ClassDef):
                yield name, child
            yield from within(name, child)

    return {name: node for module in modules() for name, node in within(module, tree(module))}


@functools.cache
def imported(module: str) -> dict[str, str]:
    """What each imported name of a module stands for."""
    names = {}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node)
            names |= {alias.asname or alias.name: f"{base}.{alias.name}" for alias in node.names}
    return names


def resolved(name: str, known: Mapping[str, ast.ClassDef]) -> str | None:
    """The class of ours that a dotted name means, through imports of packages; None for other libraries'."""
    for _ in range(9):
        if name in known:
            return name
        module, _, attribute = name.rpartition(".")
        if module not in modules() or attribute not in imported(module):
            return None
        name = imported(module)[attribute]
    return None


def bases(name: str, known: Mapping[str, ast.ClassDef]) -> list[str]:
    """The classes of ours that a class derives from directly."""
    module = next(module for module in sorted(modules(), key=len, reverse=True) if name.startswith(f"{module}."))
    found = []
    for base in known[name].bases:
        dotted = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
        first, _, rest = dotted.partition(".")
        whole = imported(module).get(first, f"{module}.{first}") + (f".{rest}" if rest else "")
        found += [target for target in [resolved(whole, known)] if target is not None]
    return found


def path_down(name: str, known: Mapping[str, ast.ClassDef]) -> list[str]:
    """A class after those of ours that it derives from, the longest way."""
    return [*max((path_down(base, known) for base in bases(name, known)), key=len, default=[]), name]


def test_no_class_is_more_than_one_level_below_another_of_ours() -> None:
    known = classes()
    assert not (found := [" > ".join(path) for name in known if len(path := path_down(name, known)) > 2]), "\n".join(
        found
    )


def test_names_of_public_classes_are_unique() -> None:
    homes = defaultdict(list)
    for module in modules():
        for node in tree(module).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(module)
    shared = {camel(name) for name in REPEATED}
    assert not (
        found := [f"{name}: {', '.join(at)}" for name, at in homes.items() if len(at) > 1 and name not in shared]
    ), "\n".join(found)


def test_names_and_bases_are_resolved() -> None:
    known = classes()
    assert resolved("rlctl.SimpleFactory", known) == "rlctl.plugins.factory.SimpleFactory"
    assert resolved("numpy.ndarray", known) is None
    assert path_down("rlctl.core.errors.ConfigError", known) == [
        "rlctl.core.errors.RlctlError",
        "rlctl.core.errors.ConfigError",
    ]


# Attributes


def asked(module: str) -> Iterator[tuple[int, str, str]]:
    """Line, text and attribute of each ``getattr`` and ``hasattr`` with a literal name.

    Python's own attributes (``__name__``) and those of modules (``os.pidfd_open``) are left out: which of them there
    are depends on the system.
    """
    loaded = {
        alias.asname or alias.name
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    for node in ast.walk(tree(module)):
        match node:
            case ast.Call(func=ast.Name("getattr" | "hasattr"), args=[thing, ast.Constant(str(name)), *_]):
                of_a_module = isinstance(thing, ast.Name) and thing.id in loaded
                if not of_a_module and not re.fullmatch("__.*__", name):
                    yield node.lineno, ast.unparse(node), name


def test_our_own_protocols_are_not_asked_for_attributes() -> None:
    found = [
        f"{module}:{line}: {text}"
        for module in modules()
        for line, text, name in asked(module)
        if name not in FOREIGN.get(module, ())
    ]
    assert not found, "\n".join(found)


def test_every_foreign_attribute_is_still_asked_for() -> None:
    for module, names in FOREIGN.items():
        assert names == {name for _, _, name in asked(module)} & names, module


# Words


def public() -> Iterator[tuple[str, str]]:
    """The names in ``__all__`` of each package."""
    for module, path in modules().items():
        if path.name != "__init__.py":
            continue
        for node in tree(module).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                for name in ast.literal_eval(node.value):
                    yield module, name


def test_public_names_are_in_the_glossary() -> None:
    words = set(re.findall(r"`([\w.]+)`", (ROOT / "docs" / "glossary.md").read_text()))
    assert not (found := [f"{module}.{name}" for module, name in public() if name not in words]), "\n".join(found)
