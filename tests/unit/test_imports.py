"""The direction of imports (docs/design.md), read from the source of every module."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import pytest
from source_tree import ROOT, modules

ORDER = (
    *(
        "core",
        "system",
        "config",
        "bundle",
        "programs",
        "surrogates",
        "executors",
        "environments",
        "monitoring",
        "plugins",
        "testing",
    ),
    *("evaluation", "steering", "benchmark", "distributed", "api", "cli"),
)
"""The packages of rlctl: one may import those before it, never one after it."""
SB3 = ("stable_baselines3", "sb3_contrib")
LIGHT_AGENTS = (
    "rlctl_agents.algorithm",
    "rlctl_agents.action_support",
    "rlctl_agents.sb3_learner",
    "rlctl_agents.on_policy.options",
    "rlctl_agents.off_policy.options",
    *(
        f"rlctl_agents.{algorithm}{module}"
        for algorithm in ("ppo", "maskable_ppo", "recurrent_ppo", "sac", "td3", "dqn")
        for module in ("", ".config")
    ),
)
MPI_MODULES = (
    "rlctl_envs.simulation_program",
    "rlctl_envs.block_copolymer.slab",
    "rlctl_envs.ensemble.program.__main__",
    "rlctl.cli.doctor",
)


@dataclass(frozen=True)
class Import:
    """One import: of which module, in which line, and whether inside a function or for type checkers only."""

    target: str
    line: int
    in_function: bool
    for_types: bool


def under(module: str, *packages: str) -> bool:
    """Whether a module is one of these packages or lies in one."""
    return any(module == package or module.startswith(package + ".") for package in packages)


def imports(module: str, source: str, is_package: bool = False) -> Iterator[Import]:
    """What a module imports: ``from a import b`` counts as ``a`` and ``a.b``, a string as the module that it names."""

    def walk(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                yield from walk(statement, in_function, True)
            for statement in node.orelse:
                yield from walk(statement, in_function, for_types)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, in_function, for_types)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                above = parts[: len(parts) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            yield Import(base, node.lineno, in_function, for_types)
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, in_function, for_types)
        elif isinstance(node, ast.Constant) and (name := _module_named(node.value)) is not None:
            yield Import(name, node.lineno, True, for_types)
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside, for_types)

    yield from walk(ast.parse(source), False, False)


def _module_named(value: object) -> str | None:
    """The module that a string names, as it is given to ``import_module``, ``python -m`` or an entry point."""
    name = str(value).partition(":")[0]
    return name if "." in name and name in modules() else None


def rank(module: str) -> int:
    """Where a module of rlctl stands in the order; ``rlctl`` itself and ``rlctl.__main__`` come last."""
    room = module.split(".")[1] if "." in module else ""
    return ORDER.index(room) if room in ORDER else len(ORDER)


def forbidden(module: str, found: Import) -> str | None:
    """Why a module may not have this import; None if it may."""
    target = found.target
    if under(module, "rlctl") and under(target, "rlctl_envs", "rlctl_agents"):
        return "the framework knows no campaign and no algorithm by name"
    if under(module, "rlctl_envs") and under(target, "rlctl_agents"):
        return "campaigns know no policies"
    if under(module, "rlctl_agents") and under(target, "rlctl_envs"):
        return "policies know no campaigns"
    if under(module, "rlctl") and target.startswith("rlctl.") and rank(target) > rank(module):
        return f"{target.split('.')[1]} stands above {module.split('.')[1]}"
    if found.for_types:
        return None
    if under(target, *SB3) and not under(module, "rlctl_agents"):
        return "Stable-Baselines3 is the learner's business"
    light = module in LIGHT_AGENTS or under(module, "rlctl_agents.rules")
    if under(target, "torch", *SB3) and light and not found.in_function:
        return "options are checked, and actors started, without PyTorch"
    if under(target, "torch") and not under(module, "rlctl_agents"):
        late = under(module, "rlctl_envs.block_copolymer") and found.in_function
        return None if late else "PyTorch is loaded where a network is trained, or on demand for a twin on a GPU"
    if under(target, "mpi4py") and under(module, "rlctl.distributed") and not found.in_function:
        return "whoever asks whether there are other ranks has no MPI to load"
    if under(target, "mpi4py") and not under(module, "rlctl.distributed", *MPI_MODULES):
        return "MPI is loaded by MPI programs only"
    return None


def graph() -> dict[str, set[str]]:
    """For each module, the modules that it imports by name."""
    known = modules()
    return {
        module: {
            found.target
            for found in imports(module, path.read_text(), path.name == "__init__.py")
            if found.target in known and found.target not in (module, module.partition(".")[0])
        }
        for module, path in known.items()
    }


def circle(edges: Mapping[str, Collection[str]]) -> list[str]:
    """A path of imports that comes back to where it began; empty: there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(edges.get(module, ())):
            if found := visit(target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(edges) if (found := visit(module, []))), [])


def test_no_module_imports_what_it_may_not() -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{found.line}: imports {found.target}: {why}"
        for module, path in modules().items()
        for found in imports(module, path.read_text(), path.name == "__init__.py")
        if (why := forbidden(module, found)) is not None
    ]
    assert not broken, "\n".join(broken)


def test_imports_have_no_circle() -> None:
    assert not (found := circle(graph())), " -> ".join(found)


def test_a_circle_is_found_with_its_path() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_every_package_is_looked_at() -> None:
    names = set(modules())
    assert {"rlctl.core.driver", "rlctl_envs.ensemble.campaign", "rlctl_agents.rules.ensemble"} <= names
    assert {name.split(".")[1] for name in names if name.startswith("rlctl.")} <= {*ORDER, "__main__"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rlctl.core.driver", "import rlctl_envs.ensemble"),
        ("rlctl.cli.main", "def f():\n    from rlctl_agents.rules import ensemble"),
        ("rlctl.core.driver", "from rlctl import monitoring"),
        ("rlctl.environments.campaign_env", "from ..steering import control"),
        ("rlctl.executors.engine", "from ..environments.campaign_env import twin"),
        ("rlctl.executors.engine", "if TYPE_CHECKING:\n    from rlctl.plugins import registry"),
        ("rlctl_envs.ensemble.factory", "from rlctl_agents.rules.ensemble import Fifo"),
        ("rlctl_agents.rules.ensemble", "class A:\n    import rlctl_envs"),
        ("rlctl.executors.engine", "import_module('rlctl.cli.main')"),
        ("rlctl_agents.rules.ensemble", "import torch"),
        ("rlctl.evaluation.compare", "try:\n    from torch import nn\nexcept ImportError:\n    pass"),
        ("rlctl_envs.block_copolymer.twin", "import torch"),
        ("rlctl.environments.campaign_env", "from stable_baselines3.common.vec_env import VecEnv"),
        ("rlctl.executors.engine", "def f():\n    from mpi4py import MPI"),
        ("rlctl.distributed.comm.polling", "from mpi4py import MPI"),
    ],
)
def test_the_check_sees_what_is_forbidden(module: str, source: str) -> None:
    assert any(forbidden(module, found) for found in imports(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rlctl.executors.engine", "from rlctl.core.task import Event"),
        ("rlctl_envs.block_copolymer.twin", "def f():\n    import torch"),
        ("rlctl_agents.training", "import torch"),
        ("rlctl.distributed.launch.mpi_context", "def f():\n    from mpi4py import MPI"),
        ("rlctl.distributed.launch.mpi_context", "if TYPE_CHECKING:\n    from mpi4py.MPI import Comm"),
        ("rlctl.steering.control", "from rlctl.executors.engine import Executor"),
    ],
)
def test_the_check_allows_what_is_allowed(module: str, source: str) -> None:
    assert not any(forbidden(module, found) for found in imports(module, source))
