"""Box action spaces: checked, learned by SAC and TD3, compared, and steered with real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import aiming
import forms
import numpy as np
import pytest
from gymnasium.spaces import Box
from mpi_runner import mpiexec

from rlctl.core.campaign import Decision, action_from_json, action_to_json, first_allowed
from rlctl.core.driver import Driver
from rlctl.core.errors import ContractError
from rlctl.core.machine import Capacity
from rlctl.core.records import RecordList
from rlctl.environments.campaign_env import CampaignEnv, twin
from rlctl.environments.campaign_vector_env import CampaignVectorEnv
from rlctl.executors.event_log import Journal
from rlctl.steering.policy_guard import PolicyGuard
from rlctl.testing.checks import check_campaign

FEW = "--set=train.options={n_steps: 64, batch_size: 64, net_arch: [8]}"


class Project:
    """The campaign as an installed package, and the command line that sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        info = folder / "packages" / "aiming-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aiming\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(aiming.ENTRY_POINTS)
        (info.parent / "aiming.py").write_text(Path(aiming.__file__).read_text())
        (folder / "aiming.yaml").write_text(aiming.CONFIG)

    def run(self, command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rlctl", command, "aiming.yaml", *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder / "packages"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def json(self, command: str, *arguments: object) -> dict:
        done = self.run(command, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def cost(self, policy: str) -> dict[str, float]:
        """Node-seconds per success of a policy and of chance, in the twin."""
        compared = self.json("evaluate", "--policy", policy, "--against", "random", "--instances", 8)
        return {row["policy"]: row["ert"] or np.inf for row in compared["rows"]}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("aiming"))


def test_it_keeps_its_promises(project: Project) -> None:
    assert project.run("check").returncode == 0
    checked = project.json("check", "--play", "--set", "policies.sure.rule=marksman")
    assert checked["reached"]["sure"] == checked["instances"]


@pytest.mark.parametrize("algorithm", ["sac", "td3"] if forms.full() else ["sac"])
def test_it_is_learned_compared_and_steered(project: Project, algorithm: str) -> None:
    out, run = f"train-{algorithm}", f"run-{algorithm}"
    trained = project.json("train", "--out", out, "--set", f"train.algorithm={algorithm}")
    assert trained["policy"] == f"{out}/policy"
    cost = project.cost(trained["policy"])
    assert cost[algorithm] < 0.3 * cost["random"]
    summary = project.json("steer", "--policy", trained["policy"], "--run", run, "--instance", 3)
    assert summary["reached"]
    assert not summary["fallbacks"]
    assert summary["decisions"] < 3 * aiming.HITS
    with Journal.open(project.folder / run / "journal.db", read_only=True) as journal:
        answers = [record.data["action"] for record in journal.records() if record.kind == "decision"]
    for answer in answers:
        assert aiming.Aiming.action_space.contains(np.array(answer, np.float32))


@pytest.mark.parametrize("algorithm", ["ppo", "recurrent_ppo"] if forms.full() else ["recurrent_ppo"])
def test_ppo_learns_it_too(project: Project, algorithm: str) -> None:
    options = ["--set", f"train.algorithm={algorithm}", "--set", "train.decisions=256", FEW]
    trained = project.json("train", "--out", f"train-{algorithm}", *options)
    assert algorithm in project.cost(trained["policy"])


@pytest.mark.parametrize("algorithm", ["maskable_ppo", "dqn"])
def test_what_knows_choices_only_is_refused_in_one_line(project: Project, algorithm: str) -> None:
    done = project.run("check", "--set", f"train.algorithm={algorithm}", "--set", "train.options={}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "does not learn actions of Box" in done.stderr
    assert "sac or td3" in done.stderr


@pytest.mark.parametrize(("algorithm", "mode"), [("sac", "asynchronous"), ("td3", "lockstep")])
def test_it_is_learned_on_ranks(project: Project, algorithm: str, mode: str) -> None:
    mpiexec()  # or skip
    out = f"ranks-{algorithm}"
    options = ["--set", f"train.algorithm={algorithm}", "--set", f"train.distributed.mode={mode}"]
    options += ["--set", "train.decisions=900"]
    trained = project.json("train", "--out", out, "--ranks", 2, *options)
    cost = project.cost(trained["policy"])
    assert cost[algorithm] < 0.5 * cost["random"]


def test_the_journal_keeps_the_numbers_exactly() -> None:
    factory, capacity = aiming.Factory(), Capacity()
    records, applied = RecordList(), []
    random = np.random.default_rng(0)

    def driver() -> Driver:
        campaign = factory.campaign(7)
        taken = campaign.apply
        campaign.apply = lambda action: (applied.append(action), taken(action))[1]  # type: ignore[method-assign]
        return Driver(campaign, twin(factory, capacity, 7, records), records)

    live = driver()
    live.begin()
    for _ in range(3):
        live.step(random.uniform(aiming.LOW, aiming.HIGH))
    again = driver()
    again.recorder = None
    again.replay(list(records), {})
    first, second = applied[:3], applied[3:6]
    for one, other in zip(first, second, strict=True):
        assert one.dtype == other.dtype == np.float32
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(action_from_json(json.loads(json.dumps(action_to_json(first[0])))), first[0])


def test_environments_clip_and_tell_no_masks() -> None:
    env = CampaignEnv(aiming.Factory(), Capacity())
    _, info = env.reset(seed=1)
    assert "action_mask" not in info
    _, reward, *_ = env.step(np.array([9.0, -9.0]))  # the campaign asserts that it lies in its space
    assert np.isfinite(reward)
    several = CampaignVectorEnv(aiming.Factory(), 3, 0, Capacity())
    _, infos = several.reset(seed=1)
    assert "action_mask" not in infos
    assert several.step(several.action_space.sample())[0].shape == (3, 2)


@pytest.mark.parametrize("space", [Box(-np.inf, 1.0, (2,), np.float32), Box(0, 3, (2,), np.int64)], ids=str)
def test_a_box_without_bounds_or_of_integers_breaks_the_contract(space: Box) -> None:
    class Odd(aiming.Factory):
        def campaign(self, seed: int) -> aiming.Aiming:
            campaign = aiming.Aiming(seed)
            campaign.action_space = space
            return campaign

    with pytest.raises(ContractError, match="with finite bounds"):
        check_campaign(Odd())


class Answering:
    """A policy of one answer."""

    name = "answering"

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def act(self, decision: Decision) -> object:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        (np.array([0.5, 1.0], np.float32), True),
        (np.array([1.0, 4.0]), True),
        (np.array([1.1, 1.0]), False),
        (np.array([np.nan, 1.0]), False),
        (np.array([0.5]), False),
        (np.array(["a", "b"]), False),
    ],
)
def test_the_guard_takes_numbers_within_the_bounds(answer: np.ndarray, taken: bool) -> None:
    space = aiming.Aiming.action_space
    decision = Decision("shot", 0.0, {}, np.zeros(2, np.float32))
    found, reason = PolicyGuard(Answering(answer), None, space).act(decision)  # type: ignore[arg-type]
    assert reason == (None if taken else "action")
    np.testing.assert_array_equal(found, answer if taken else first_allowed(space, decision.mask))
    np.testing.assert_array_equal(first_allowed(space, decision.mask), np.array([0.0, 2.0], np.float32))
