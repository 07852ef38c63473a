"""An ensemble whose tasks are stopped and resized all the time, under every fault that executors are tested with.

Whatever dies, and when: no task ends twice, none is lost, the journal folds to the campaign that was played, nothing
is left. ``RLCTL_FAULTS=full`` makes many of each fault.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import restless
from evidence import processes_in, read
from machine import FULL
from test_kill_points import kill_all

from rlctl.config.load import load_config
from rlctl.core.driver import Driver
from rlctl.environments.campaign_env import twin
from rlctl.plugins.registry import configured_campaign
from rlctl.system.mpi import clean_environment, find_mpiexec
from rlctl_envs.ensemble.active_task import TaskPhase

pytestmark = [
    pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at processes through /proc"),
    pytest.mark.skipif(find_mpiexec() is None, reason="no mpiexec in this environment"),
]


class Ensemble:
    """One campaign, from its first life to its end."""

    def __init__(self, folder: Path, lease_s: float = 0.0, **environment: str) -> None:
        self.folder, self.run = folder, folder / "run"
        executor = {"options": {"oversubscribe": True, "lease_s": lease_s}}
        text = restless.config({"nodes": 2, "cores": 2}, executor, program={"walltime_s": 12.0})
        (folder / "config.yaml").write_text(text)
        self.environment = clean_environment(os.environ) | {"OMP_NUM_THREADS": "1"} | environment
        self.life: subprocess.Popen[str] | None = None

    def live(self) -> subprocess.Popen[str]:
        command = [sys.executable, restless.SCRIPT, "config.yaml", "run"]
        pipe = subprocess.PIPE
        self.life = subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        return self.life

    def until(self, what: str, count: int = 1) -> None:
        """Until the journal has so many records of that kind, or the campaign is over."""
        assert self.life is not None
        while self.life.poll() is None and sum(self._is(record, what) for record in self._read()) < count:
            time.sleep(0.02)

    def _read(self) -> list[Any]:
        return read(self.run) if (self.run / "journal.db").exists() else []

    @staticmethod
    def _is(record: Any, what: str) -> bool:
        return record.kind == what or record.data.get("state") == what

    def finish(self, reached: bool = True) -> dict[str, Any]:
        """A last life that nobody disturbs, if the campaign needs it, and the judgement."""
        if not (self.run / "summary.json").exists():
            life = self.live()
            _, errors = life.communicate(timeout=200)
            assert life.returncode == 0, errors
        assert processes_in(self.folder) == []
        summary: dict[str, Any] = json.loads((self.run / "summary.json").read_text())
        records = read(self.run)
        assert [r.data["number"] for r in records if r.kind == "decision"] == list(range(summary["decisions"]))
        ends: dict[str, list[str]] = defaultdict(list)
        for record in records:
            if record.kind == "event" and "result" in record.data:
                ends[record.data["uid"]].append(record.data["state"])
        assert all(len(states) == 1 for states in ends.values()), ends
        config = load_config(self.folder / "config.yaml")
        factory = configured_campaign(config)
        again = Driver(factory.campaign(0), twin(factory, config.machine.capacity(), 0))
        again.replay(records, {})
        campaign: Any = again.campaign
        state = campaign.state
        assert summary["reached"] is reached
        assert not [*state.waiting, *state.blocked, *state.running]
        final = [task.job.number for task in state.ended]
        assert sorted(final) == sorted(state.tasks)
        assert summary["successes"] == state.counts[TaskPhase.DONE]
        assert not list((self.run / "work").glob("*.part"))
        return summary


@pytest.fixture
def ensemble(tmp_path: Path) -> Iterator[Ensemble]:
    found = Ensemble(tmp_path)
    yield found
    if found.life is not None and found.life.poll() is None:
        found.life.kill()
    kill_all(tmp_path)


@pytest.mark.parametrize("number", range(8 if FULL else 1))
def test_the_controller_is_killed_again_and_again(ensemble: Ensemble, number: int) -> None:
    random = np.random.default_rng([1, number])
    for _ in range(3):
        life = ensemble.live()
        ensemble.until("decision", 1)
        time.sleep(random.uniform(0.2, 3.0))
        life.kill()
        life.communicate()
    ensemble.finish()


@pytest.mark.parametrize("what", ["preempted", "canceled"])
def test_killed_in_the_middle_of_resizing_and_stopping(ensemble: Ensemble, what: str) -> None:
    for count in range(1, 4 if FULL else 2):
        life = ensemble.live()
        ensemble.until(what, count)
        life.kill()
        life.communicate()
        if (ensemble.run / "summary.json").exists():
            break
    ensemble.finish()


@pytest.mark.skipif(not FULL, reason="a part of RLCTL_FAULTS=full")
def test_programs_go_on_and_are_taken_over(tmp_path: Path) -> None:
    ensemble = Ensemble(tmp_path, lease_s=30.0)
    life = ensemble.live()
    ensemble.until("running", 2)
    life.kill()
    life.communicate()
    ensemble.finish()


def test_everything_dies_at_once(ensemble: Ensemble) -> None:
    life = ensemble.live()
    ensemble.until("preempted")
    kill_all(ensemble.folder)
    life.communicate()
    ensemble.finish()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT] if FULL else [signal.SIGTERM])
def test_interrupted_and_resumed(ensemble: Ensemble, number: signal.Signals) -> None:
    life = ensemble.live()
    ensemble.until("decision", 6)
    life.send_signal(number)
    _, errors = life.communicate(timeout=60)
    assert life.returncode in (0, 130), errors
    assert processes_in(ensemble.folder) == []
    ensemble.finish()


@pytest.mark.parametrize(
    "who", [*(["rlctl.executors.local.supervisor"] if FULL else []), "rlctl_envs.ensemble.program"]
)
def test_a_supervisor_or_a_rank_dies(ensemble: Ensemble, who: str) -> None:
    life = ensemble.live()
    ensemble.until("running", 2)
    killed = 0
    while life.poll() is None and not killed:
        for pid in processes_in(ensemble.folder):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if Path(f"/proc/{pid}").exists() else []
            if who.encode() in words and b"mpiexec" not in words[0]:
                os.kill(pid, signal.SIGKILL)
                killed += 1
                break
    _, errors = life.communicate(timeout=200)
    assert life.returncode == 0, errors
    assert killed == 1
    ensemble.finish()


@pytest.mark.parametrize("fault", ["garbage", "exit", "die", "hang"] if FULL else ["die"])
def test_programs_that_misbehave_end_as_failed(tmp_path: Path, fault: str) -> None:
    ensemble = Ensemble(tmp_path, RLCTL_ENSEMBLE_FAULT=fault)
    summary = ensemble.finish(reached=False)
    assert summary["successes"] == 0
    assert summary["extra"]["attempts_failed"] > 0
