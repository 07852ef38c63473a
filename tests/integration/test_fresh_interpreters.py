"""What an import loads, seen in an interpreter of its own: commands and executors start without heavy libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

LEARNING = ("torch", "stable_baselines3", "sb3_contrib")


def loaded(code: str, *suspects: str) -> set[str]:
    """Which of these modules a fresh interpreter has loaded after this code."""
    code = f"import sys\n{code}\nprint(*({set(suspects)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "modules",
    [
        "rlctl.cli.main",
        "rlctl.cli.doctor",
        "rlctl.api",
        "rlctl.steering",
        "rlctl.bundle.saved_policy, rlctl.evaluation.compare, rlctl.evaluation.tuning",
    ],
)
def test_no_learning_library_is_needed_to_start(modules: str) -> None:
    assert not loaded(f"import {modules}", *LEARNING, "mpi4py.MPI")


def test_executors_need_neither_gymnasium_nor_a_learning_library() -> None:
    assert not loaded("import rlctl.executors", "gymnasium", *LEARNING, "mpi4py.MPI")


@pytest.mark.parametrize("campaign", ["block_copolymer", "ensemble"])
def test_a_simulated_campaign_and_its_rules_start_without_torch(campaign: str) -> None:
    code = (
        "from rlctl.plugins.registry import campaign_factory, names, policy_factory\n"
        f"campaign_factory({campaign!r}, {{}}).campaign(0)\n"
        "for name in names('rlctl.policies'): policy_factory(name)"
    )
    assert not loaded(code, *LEARNING)


def test_the_ids_of_the_campaigns_suffice() -> None:
    ids = ("rlctl/BlockCopolymer-v0", "rlctl/Ensemble-v0")
    loaded(f"import gymnasium\nfor name in {ids}: gymnasium.make(f'rlctl_envs:{{name}}').reset()")
