"""The source of the three packages, module by module."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOMES = {"rlctl": ROOT, "rlctl_envs": ROOT / "envs", "rlctl_agents": ROOT / "agents"}


@functools.cache
def modules() -> dict[str, Path]:
    """The file of each module, by its dotted name."""
    return dict(_modules())


def _modules() -> Iterator[tuple[str, Path]]:
    for package, home in HOMES.items():
        for path in sorted((home / package).rglob("*.py")):
            parts = path.relative_to(home).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@functools.cache
def source(module: str) -> str:
    return modules()[module].read_text()


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(source(module))


def absolute(module: str, node: ast.ImportFrom) -> str:
    """The dotted name of the module from which a statement of this module imports."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    above = parts[: len(parts) - node.level + (modules()[module].name == "__init__.py")]
    return ".".join([*above, *([node.module] if node.module else [])])
