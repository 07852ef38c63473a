"""kill -9 of a training at any moment: resumed, it learns to the same total and leaves whole files and nothing else."""

import json
import os
import signal
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from evidence import Found, processes_in
from machine import FULL, HEAD, NOTHING_SAID, Life, Machine, Row, chance, effects, judged, place, printed_line
from stable_baselines3 import PPO
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlctl.bundle import saved_policy
from rlctl_agents.training_checkpoint import KEPT

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at processes through /proc")

CONFIG = """
schema: 1
seed: 3
campaign: {{name: ensemble, options: {{workload: {{tasks: [4, 6]}}}}}}
machine: {{nodes: 8, cores: 1}}
train:
  algorithm: ppo
  decisions: {decisions}
  num_envs: 4
  checkpoint_decisions: 64
  judgement_instances: 2
  options: {{n_steps: 16, n_epochs: 1, batch_size: 64, net_arch: [8]}}
"""
TRAIN = ["train", "config.yaml", "--out", "run", "--json"]
SHORT, LONG = 192, 1536
# PyTorch imports its compiler when the first optimiser is made.
MODULES = (
    "torch._dynamo",
    "rlctl.api",
    "rlctl_agents.training",
    "rlctl_envs.ensemble.factory",
    "rlctl.cli.main",
)
TABLE: list[Row] = []


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("train"), *MODULES) as machine:
        yield machine
    print("\n" + HEAD, *TABLE, sep="\n")


class Training:
    """One training, from its first life to its end."""

    def __init__(self, machine: Machine, row: Row, name: str, decisions: int) -> None:
        self.machine, self.row, self.decisions = machine, row, decisions
        self.folder = machine.place(name, CONFIG.format(decisions=decisions))
        row.folder = self.folder
        self.run = self.folder / "here" / "run"
        self.reached = 0

    @property
    def command(self) -> list[str]:
        return [*TRAIN, "--resume"] if self.run.exists() else TRAIN

    def live(self, point: int | None = None, number: int = signal.SIGKILL, cold: bool = False) -> Life:
        self.row.lives += 1
        machine = self.machine
        return (
            machine.cold(self.folder, self.command) if cold else machine.live(self.folder, self.command, point, number)
        )

    def died(self, life: Life) -> bool:
        """Take note of a life's end; whether it was a violent one."""
        code = life.end()
        if code == 0:
            return False
        assert code == -signal.SIGKILL, life.errors
        self.row.kills += 1
        self.machine.clean(self.folder, life, self.row)
        self.nothing_lost()
        return True

    def nothing_lost(self) -> None:
        """What has the name of a checkpoint is one, and the newest is no older than before."""
        checkpoints = sorted((self.run / "checkpoints").glob("[0-9]*"))
        for checkpoint in checkpoints:
            assert json.loads((checkpoint / "state.json").read_text())["decisions"] == int(checkpoint.name)
            with zipfile.ZipFile(checkpoint / "model.zip") as model:
                assert model.testzip() is None
        newest = max((int(checkpoint.name) for checkpoint in checkpoints), default=0)
        assert newest >= self.reached, f"the checkpoint of {self.reached} decisions is lost"
        self.reached = newest

    def finish(self) -> None:
        """A last life that nobody kills, and the judgement."""
        life = self.live()
        assert life.end() == 0, life.errors
        self.nothing_lost()
        assert self.reached == self.decisions
        names = sorted(os.listdir(self.run / "checkpoints"))
        assert len(names) <= KEPT
        assert int(names[-1]) == self.decisions
        assert PPO.load(self.run / "checkpoints" / names[-1] / "model.zip").num_timesteps == self.decisions
        assert PPO.load(self.run / "policy" / "model.zip").num_timesteps == self.decisions
        assert saved_policy.load(self.run / "policy").manifest.decisions == self.decisions
        curves = EventAccumulator(str(self.run / "tensorboard"))
        curves.Reload()
        assert max(point.step for point in curves.Scalars("learning/decisions_per_s")) == self.decisions
        found = Found(finished=1, decisions=self.decisions, processes=len(processes_in(self.folder)))
        found.left += sorted(set(os.listdir(self.run)) ^ {"candidates", "checkpoints", "policy", "tensorboard"})
        found.left += [name for name in os.listdir(self.run / "candidates") if not name.endswith(".pt")]
        found.left += [name for name in names if not name.isdigit()] + self.machine.leftovers(self.folder)
        self.row.add(self.folder, found)


def count_effects(machine: Machine) -> int:
    """How many effects a short training has when nobody kills it."""
    folder = machine.base / "counted"
    if not folder.exists():
        Training(machine, Row("counted"), "counted", SHORT).finish()
    return effects(folder)


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
def test_killed_at_random_moments_again_and_again(machine: Machine, cold: bool) -> None:
    kind = "train, random moments" + (", new interpreter" if cold else "")
    if cold and not FULL:
        pytest.skip("its imports take most of the time: RLCTL_FAULTS=full")
    kills = (12 if cold else 40) if FULL else 2
    with judged(TABLE, kind) as row:
        number = 0
        while row.kills < kills:
            random = chance(10, cold, number)
            training = Training(machine, row, f"random-{cold}-{number}", LONG)
            number += 1
            for _ in range(6):
                life = training.live(cold=cold)
                end_s = time.monotonic() + random.uniform(0, 4.0 if cold else 1.2)
                while time.monotonic() < end_s and life.alive:
                    time.sleep(0.001)
                if life.alive:
                    life.kill()
                if not training.died(life) or row.kills >= kills:
                    break
            training.finish()


def test_killed_at_each_effect_and_resumed(machine: Machine) -> None:
    count = count_effects(machine)
    points = range(1, count + 1) if FULL else sorted(chance(11).choice(count, 2, replace=False) + 1)
    with judged(TABLE, "train, right at each effect", effects=count) as row:
        for point in points:
            training = Training(machine, row, f"effect-{point}", SHORT)
            assert training.died(training.live(int(point))) or effects(training.folder) < point
            training.finish()
        assert row.kills > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_at_an_effect_the_printed_line_goes_on(machine: Machine, number: signal.Signals) -> None:
    count = count_effects(machine)
    points = range(1, count + 1, 5) if FULL else sorted(chance(12, number).choice(count, 1) + 1)
    with judged(TABLE, f"train, {number.name} right at every fifth effect") as row:
        for point in points:
            training = Training(machine, row, f"interrupt-{number}-{point}", SHORT)
            life = training.live(int(point), number)
            code = life.end()
            row.kills += 1
            assert processes_in(training.folder) == []
            if code != 0:  # it may come too late to stop anything
                if code == 130 and life.errors != NOTHING_SAID:
                    assert printed_line(life) in (TRAIN, [*TRAIN, "--resume"])
                    assert (printed_line(life) == TRAIN) <= (not training.run.exists())
                else:  # before the command was read, or after it: nothing had begun, or all was done
                    assert code in (130, -number), f"{place(training.folder)}: {code} {life.errors}"
                    assert not training.run.exists() or (training.run / "policy").exists(), place(training.folder)
                assert training.machine.leftovers(training.folder) == []
            training.nothing_lost()
            training.finish()


def test_the_last_record_of_a_killed_life_may_be_torn(machine: Machine) -> None:
    """TensorBoard reads on where a life was killed while it wrote; and there are curves of each life."""
    with judged(TABLE, "train, curves cut at a random byte") as row:
        random = chance(13)
        training = Training(machine, row, "curves", LONG)
        life = training.live()
        folder: Path = training.run / "tensorboard"
        while life.alive and not list((training.run / "checkpoints").glob("[0-9]*")):
            time.sleep(0.002)
        life.kill()
        assert training.died(life)
        for file in (path for path in folder.rglob("*") if path.is_file()):
            os.truncate(file, int(random.integers(file.stat().st_size)))
        training.finish()
