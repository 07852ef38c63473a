"""Who may lean on whom (docs/design.md), read from the source of every module."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOMES = {"rlctl": ROOT, "rlctl_envs": ROOT / "envs", "rlctl_agents": ROOT / "agents"}

CORE = (
    *("task", "spec_values", "errors", "campaign", "policy", "records", "plain", "driver", "env", "vector"),
    "executors",
)
UPPER = ("steering", "evaluation", "monitoring", "cli", "experiment", "demo")
EXECUTORS_MAY = tuple(
    f"rlctl.{name}"
    for name in ("task", "spec_values", "errors", "bugs", "records", "plain", "config", "plugins", "executors")
)
SB3 = ("stable_baselines3", "sb3_contrib")
LIGHT_AGENTS = (
    "rlctl_agents.rules",
    "rlctl_agents.entry",
    "rlctl_agents.recipe",
    "rlctl_agents.ppo.description",
    "rlctl_agents.ppo.options",
    "rlctl_agents.ppo.preparation",
    "rlctl_agents.maskable_ppo.description",
    "rlctl_agents.recurrent_ppo.description",
    "rlctl_agents.off_policy.description",
    "rlctl_agents.off_policy.options",
)
MPI_MODULES = (
    "rlctl_envs.block_copolymer.simulate",
    "rlctl_envs.block_copolymer.slab",
    "rlctl_envs.ensemble.program.__main__",
    "rlctl.doctor",
)


@dataclass(frozen=True)
class Import:
    """One import that runs: of which module, in which line, and whether only when a function is called."""

    target: str
    line: int
    in_function: bool


def under(module: str, *packages: str) -> bool:
    """Whether a module is one of these packages or lies in one."""
    return any(module == package or module.startswith(package + ".") for package in packages)


def imports(module: str, source: str, is_package: bool = False) -> Iterator[Import]:
    """What a module imports, except for type checkers; ``from a import b`` counts as ``a`` and as ``a.b``."""

    def walk(node: ast.AST, in_function: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.orelse:
                yield from walk(statement, in_function)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, in_function)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                above = parts[: len(parts) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            yield Import(base, node.lineno, in_function)
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, in_function)
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(ast.parse(source), False)


def forbidden(module: str, found: Import) -> str | None:
    """Why a module may not have this import; None if it may."""
    target = found.target
    core = tuple(f"rlctl.{name}" for name in CORE)
    if under(module, "rlctl") and under(target, "rlctl_envs", "rlctl_agents"):
        return "the framework knows no campaign and no algorithm by name"
    if under(module, "rlctl_envs") and under(target, "rlctl_agents"):
        return "campaigns know no policies"
    if under(module, "rlctl_agents") and under(target, "rlctl_envs"):
        return "policies know no campaigns"
    if under(module, *core) and under(target, *(f"rlctl.{name}" for name in UPPER)):
        return "the core knows nothing of what is built on it"
    if under(module, "rlctl.executors") and target != "rlctl" and under(target, "rlctl"):  # noqa: SIM102
        if not under(target, *EXECUTORS_MAY):
            return "executors know tasks, and nothing of campaigns and policies"
    if under(target, *SB3) and not under(module, "rlctl_agents"):
        return "Stable-Baselines3 is the learner's business"
    if under(target, "torch", *SB3) and under(module, *LIGHT_AGENTS) and not found.in_function:
        return "options are checked, and actors started, without PyTorch"
    if under(target, "torch") and not under(module, "rlctl_agents"):
        late = under(module, "rlctl_envs.block_copolymer") and found.in_function
        return None if late else "PyTorch is loaded where a network is trained, or on demand for a twin on a GPU"
    if under(target, "mpi4py") and under(module, "rlctl.distributed") and not found.in_function:
        return "whoever asks whether there are other ranks has no MPI to load"
    if under(target, "mpi4py") and not under(module, "rlctl.distributed", *MPI_MODULES):
        return "MPI is loaded by MPI programs only"
    return None


def modules() -> Iterator[tuple[str, Path]]:
    for package, home in HOMES.items():
        for path in sorted((home / package).rglob("*.py")):
            parts = path.relative_to(home).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_no_module_imports_what_it_may_not() -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{found.line}: imports {found.target}: {why}"
        for module, path in modules()
        for found in imports(module, path.read_text(), path.name == "__init__.py")
        if (why := forbidden(module, found)) is not None
    ]
    assert not broken, "\n".join(broken)


def test_every_package_is_looked_at() -> None:
    names = {name for name, _ in modules()}
    assert {"rlctl.driver", "rlctl_envs.moldable_queue.campaign", "rlctl_agents.rules.queue"} <= names


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rlctl.driver", "import rlctl_envs.moldable_queue"),
        ("rlctl.cli", "def f():\n    from rlctl_agents.rules import queue"),
        ("rlctl.driver", "from rlctl import monitoring"),
        ("rlctl.env", "from .steering import control"),
        ("rlctl.executors.local", "from ..campaign import Decision"),
        ("rlctl.executors.local", "if TYPE_CHECKING:\n    pass\nelse:\n    import rlctl.policy"),
        ("rlctl_envs.moldable_queue.factory", "from rlctl_agents.rules.queue import LargestFirst"),
        ("rlctl_agents.rules.queue", "class A:\n    import rlctl_envs"),
        ("rlctl_agents.rules.queue", "import torch"),
        ("rlctl.evaluation.compare", "try:\n    from torch import nn\nexcept ImportError:\n    pass"),
        ("rlctl_envs.block_copolymer.twin", "import torch"),
        ("rlctl.env", "from stable_baselines3.common.vec_env import VecEnv"),
        ("rlctl.executors.local", "def f():\n    from mpi4py import MPI"),
        ("rlctl.distributed.waiting", "from mpi4py import MPI"),
    ],
)
def test_the_check_sees_what_is_forbidden(module: str, source: str) -> None:
    assert any(forbidden(module, found) for found in imports(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rlctl.campaign", "if TYPE_CHECKING:\n    from rlctl.monitoring.progress import Progress"),
        ("rlctl.executors.local", "from rlctl.task import Event"),
        ("rlctl_envs.block_copolymer.twin", "def f():\n    import torch"),
        ("rlctl_agents.training", "import torch"),
        ("rlctl.distributed.world", "def f():\n    from mpi4py import MPI"),
        ("rlctl.steering", "from rlctl.executors.local import LocalExecutor"),
    ],
)
def test_the_check_allows_what_is_allowed(module: str, source: str) -> None:
    assert not any(forbidden(module, found) for found in imports(module, source))


@pytest.mark.parametrize("module", ["rlctl.cli", "rlctl.steering", "rlctl.saved_policy", "rlctl.executors.local"])
def test_steering_starts_without_torch(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "print(*sorted({'torch', 'stable_baselines3', 'sb3_contrib', 'mpi4py.MPI'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", ["block_copolymer", "moldable_queue"])
def test_the_simulated_campaign_and_its_rules_start_without_torch(name: str) -> None:
    code = (
        "import sys; from rlctl.registry import campaign_factory, names, policy_factory; "
        f"campaign_factory({name!r}, {{}}).campaign(0); [policy_factory(n) for n in names('rlctl.policies')]; "
        "print(*sorted({'torch', 'stable_baselines3', 'sb3_contrib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
