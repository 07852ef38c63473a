"""What goes wrong while ranks learn: done to real trainings. ``RLCTL_FAULTS=full`` does it three times, with a table.

Run with ``-s`` it prints what was done, how it ended, and how long it took until somebody noticed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import forms
import pytest
from mpi_runner import mpiexec, survives_a_dead_rank

from rlctl.distributed.launch.launcher import stale_shm
from rlctl.executors.local.processes import family, send_signal
from rlctl.system.mpi import clean_environment

ROOT = Path(__file__).parents[2]
FULL = forms.full("FAULTS")
TRIES = 3 if FULL else 1
full = pytest.mark.skipif(not FULL, reason="takes a minute: make test-faults")
PATIENCE_S = 90.0

CONFIG = """
schema: 1
seed: {seed}
campaign:
  name: gymnasium
  options: {{id: Faulty-v0, module: faulty, kwargs: {{pace_s: {pace_s}, faults: {faults}, mark: true}}}}
train:
  decisions: {decisions}
  checkpoint_decisions: 400
  validation_instances: 0
  judgement_instances: 0
  distributed:
    chunk_steps: 16
    chunk_s: 1.0
    lease_s: {lease_s}
    mode: {mode}
    environment: {{step_timeout_s: 1.0, backoff_s: 0.05, backoff_limit_s: 0.2}}
  options: {{n_steps: 64, batch_size: 64, net_arch: [16]}}
"""


@pytest.fixture
def ulfm() -> None:
    if not survives_a_dead_rank():
        pytest.skip("this MPI does not survive a dead rank")


FILM = """
schema: 1
seed: 1
campaign:
  name: gymnasium
  options:
    id: "rlctl_envs:rlctl/BlockCopolymerFilm-v0"
    kwargs: {{grid: 32, steps: 20, segments: 20}}
    communicator: communicator
train:
  decisions: {decisions}
  checkpoint_decisions: 100
  validation_instances: 0
  judgement_instances: 0
  distributed: {{ranks_per_env: 2, lease_s: 5.0}}
  options: {{n_steps: 16, batch_size: 32, net_arch: [16]}}
"""


class Training:
    """``rlctl train --ranks``, what it says and when."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.token = folder, uuid.uuid4().hex
        self.said: list[tuple[float, str]] = []
        self.process: subprocess.Popen[str] | None = None
        (folder / "tmp").mkdir()
        self._relics = stale_shm.present()

    def begin(self, resume: bool = False, ranks: int = 4, config: str = CONFIG, **settings: object) -> None:
        mpiexec()  # or skip
        known = {"seed": 1, "pace_s": 0.005, "faults": "{}", "decisions": 1 << 20, "lease_s": 5.0}
        known |= {"mode": "asynchronous", **settings}
        (self.folder / "config.yaml").write_text(config.format(**known))
        folders = [ROOT, ROOT / "envs", ROOT / "agents", ROOT / "tests" / "distributed"]
        self.said = []
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rlctl", "train", "config.yaml", "--out=run", f"--ranks={ranks}"]
            + ["--resume"] * resume,
            cwd=self.folder,
            env={
                **clean_environment(os.environ),
                "PYTHONPATH": os.pathsep.join(map(str, folders)),
                "RLCTL_TEST_TOKEN": self.token,
                "TMPDIR": str(self.folder / "tmp"),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, args=(self.process,), daemon=True)
        self._listener.start()

    def heard(self, pattern: str) -> float | None:
        """When it said something like that, last."""
        return next((at for at, line in reversed(self.said) if re.search(pattern, line)), None)

    def until(self, pattern: str, patience_s: float = PATIENCE_S) -> float:
        """Wait until it has said something like that; when it was."""
        return self.wait(lambda: self.heard(pattern), pattern, patience_s)

    def until_checkpoint(self) -> None:
        self.wait(lambda: self.checkpoints() or None, "a checkpoint")

    def checkpoints(self) -> list[Path]:
        return sorted(path for path in (self.folder / "run" / "checkpoints").glob("*") if path.name.isdigit())

    def wait(self, found, what: str, patience_s: float = PATIENCE_S):
        end = time.monotonic() + patience_s
        while (value := found()) is None:
            assert time.monotonic() < end, f"{what}: not within {patience_s} s; it said:\n{self.text}"
            time.sleep(0.01)
        return value

    def ended(self, patience_s: float = PATIENCE_S) -> int:
        """Wait for its end; the exit code. Nothing of it is left."""
        assert self.process is not None
        try:
            code = self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it has not ended; it said:\n{self.text}")
        self._listener.join(10)
        end = time.monotonic() + 15  # a stopped process dies when its launcher has gone
        while family([], self.token.encode()) and time.monotonic() < end:
            time.sleep(0.05)
        assert family([], self.token.encode()) == []
        assert stale_shm.present() <= self._relics
        return code

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.said)

    def rank(self, number: int) -> int:
        """The process of a rank."""

        def found() -> int | None:
            for pid in family([], self.token.encode()):
                with contextlib.suppress(OSError):
                    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                    command = Path(f"/proc/{pid}/cmdline").read_bytes()
                    if b"python" in command and f"OMPI_COMM_WORLD_RANK={number}".encode() in variables:
                        return pid
            return None

        return self.wait(found, f"rank {number}")

    def clean(self) -> None:
        send_signal(family([], self.token.encode()), signal.SIGKILL)
        stale_shm.remove_since(self._relics)

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.said.append((time.monotonic(), line.rstrip()))


@pytest.fixture(params=range(TRIES))
def training(tmp_path: Path) -> Iterator[Training]:
    made = Training(tmp_path)
    yield made
    made.clean()


class Table:
    """What was done and what came of it."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[str, float]]] = {}

    def add(self, fault: str, outcome: str, seconds: float) -> None:
        self.rows.setdefault(fault, []).append((outcome, seconds))


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    made = Table()
    yield made
    print(f"\n{'fault':42} {'tries':>5} {'noticed, s: median [least, most]':>34}  outcome")
    for fault, tries in made.rows.items():
        seconds = [s for _, s in tries]
        noticed = f"{statistics.median(seconds):.2f} [{min(seconds):.2f}, {max(seconds):.2f}]"
        print(f"{fault:42} {len(tries):>5} {noticed:>34}  {', '.join(sorted({o for o, _ in tries}))}")


def scalars(folder: Path, tag: str) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "run" / "tensorboard"))
    events.Reload()
    return [one.value for one in events.Scalars(tag)] if tag in events.Tags()["scalars"] else []


@pytest.mark.usefixtures("ulfm")
def test_a_killed_actor_is_replaced_and_the_training_goes_on(training: Training, table: Table) -> None:
    training.begin(decisions=6000)
    training.until_checkpoint()
    os.kill(training.rank(2), signal.SIGKILL)
    struck_s = time.monotonic()
    noticed_s = training.until(r"actor 1 is gone")
    assert training.ended() == 0, training.text
    assert max(scalars(training.folder, "distributed/restarts")) == 1.0
    # The replacement is one of three again, before the end.
    assert scalars(training.folder, "distributed/actors")[-1] == 3.0
    table.add("kill -9 of an actor", "replaced, goes on to the end", noticed_s - struck_s)


@pytest.mark.usefixtures("ulfm")
def test_an_actor_that_lost_a_rank_of_its_environment_is_replaced_with_all_of_them(
    training: Training, table: Table
) -> None:
    training.begin(ranks=5, config=FILM, decisions=1500)
    training.until_checkpoint()
    os.kill(training.rank(4), signal.SIGKILL)  # the second rank of the second environment
    struck_s = time.monotonic()
    noticed_s = training.until(r"actor 1 is gone")
    assert training.ended() == 0, training.text
    assert max(scalars(training.folder, "distributed/restarts")) == 1.0
    assert scalars(training.folder, "distributed/actors")[-1] == 2.0
    table.add("kill -9 of an environment's second rank", "replaced, goes on to the end", noticed_s - struck_s)


@full
@pytest.mark.usefixtures("ulfm")
def test_a_silent_actor_is_replaced_when_its_lease_is_over(training: Training, table: Table) -> None:
    training.begin(decisions=8000, lease_s=2.0)
    training.until_checkpoint()
    os.kill(training.rank(3), signal.SIGSTOP)
    struck_s = time.monotonic()
    noticed_s = training.until(r"actor 2 is gone: it was silent")
    assert training.ended() == 0, training.text
    table.add("SIGSTOP of an actor, lease 2 s", "replaced, goes on to the end", noticed_s - struck_s)


def test_a_killed_learner_ends_the_job_and_the_training_goes_on_with_resume(training: Training, table: Table) -> None:
    training.begin()
    training.until_checkpoint()
    os.kill(training.rank(0), signal.SIGKILL)
    struck_s = time.monotonic()
    assert training.ended() in (70, 75), training.text
    seconds = time.monotonic() - struck_s
    before = int(training.checkpoints()[-1].name)
    training.begin(resume=True, decisions=before + 1000)
    assert training.ended() == 0, training.text
    assert int(training.checkpoints()[-1].name) >= before + 1000
    table.add("kill -9 of the learner", "job ends; resumed to the end", seconds)


def test_a_stopped_learner_loses_its_actors_and_they_end(training: Training, table: Table) -> None:
    training.begin(lease_s=2.0, decisions=4000)
    training.until_checkpoint()
    learner = training.rank(0)
    actors = [training.rank(number) for number in (1, 2, 3)]
    os.kill(learner, signal.SIGSTOP)
    struck_s = time.monotonic()

    def closed() -> float | None:
        # They have closed their environments, and wait for the learner's word to end.
        gone = [not (training.folder / f"open-{pid}").exists() for pid in actors]
        return time.monotonic() if all(gone) else None

    noticed_s = training.wait(closed, "actors that leave", 20)
    os.kill(learner, signal.SIGCONT)
    assert training.ended() == (0 if survives_a_dead_rank() else 75), training.text
    table.add("SIGSTOP of the learner, lease 2 s", "actors leave; it goes on with others", noticed_s - struck_s)


def test_failing_environments_are_counted_by_kind(training: Training, table: Table) -> None:
    faults = "{30: raise, 60: nan, 90: shape, 120: diverge, 150: hang, 180: nan reward}"
    training.begin(decisions=3000, faults=faults)
    assert training.ended() == 0, training.text
    kinds = {"raised": 1, "not_finite": 2, "wrong_shape": 1, "diverged": 1, "hung": 1}
    for kind, count in kinds.items():  # of each of three actors
        assert max(scalars(training.folder, f"distributed/failures/{kind}")) == 3 * count, kind
    hung = [float(m[1]) for m in re.finditer(r"takes more than ([\d.]+) s", training.text)]
    assert len(hung) == 3
    table.add("raise, NaN, shape, divergence, hang: 18", "counted, made anew, goes on", hung[0])


@pytest.mark.parametrize(
    ("number", "code", "mode"),
    [
        (signal.SIGTERM, 130, "asynchronous"),
        pytest.param(signal.SIGUSR1, 75, "asynchronous", marks=full),
        pytest.param(signal.SIGTERM, 130, "lockstep", marks=full),
        (signal.SIGUSR1, 75, "lockstep"),
    ],
)
def test_a_signal_writes_a_checkpoint_and_resume_goes_on(
    training: Training, table: Table, number: signal.Signals, code: int, mode: str
) -> None:
    training.begin(mode=mode)
    training.until_checkpoint()
    before = training.checkpoints()[-1].name
    assert training.process is not None
    training.process.send_signal(number)
    struck_s = time.monotonic()
    assert training.ended() == code, training.text
    seconds = time.monotonic() - struck_s
    assert "Traceback" not in training.text
    newest = training.checkpoints()[-1]
    assert newest.name >= before
    training.begin(resume=True, mode=mode, decisions=int(newest.name) + 600)
    assert training.ended() == 0, training.text
    table.add(f"{number.name}, {mode}", f"checkpoint, exit {code}; resumed to the end", seconds)


def test_a_torn_checkpoint_is_refused_and_the_one_before_it_used(training: Training, table: Table) -> None:
    training.begin()
    training.wait(lambda: True if len(training.checkpoints()) >= 2 else None, "two checkpoints")
    os.kill(training.rank(0), signal.SIGKILL)
    training.ended()
    whole, torn = training.checkpoints()[-2:]
    model = torn / "model.zip"
    model.write_bytes(model.read_bytes()[:1000])
    training.begin(resume=True, decisions=int(whole.name) + 1000)
    assert training.ended() == 0, training.text
    assert torn.name in training.text
    table.add("a torn checkpoint", "refused; resumed from the one before", 0.0)


def test_a_dead_worker_ends_lock_step_in_order(training: Training, table: Table) -> None:
    training.begin(mode="lockstep")
    training.until_checkpoint()
    os.kill(training.rank(2), signal.SIGKILL)
    struck_s = time.monotonic()
    assert training.ended() == 75, training.text
    seconds = time.monotonic() - struck_s
    assert "--resume" in training.said[-1][1]
    newest = int(training.checkpoints()[-1].name)
    training.begin(resume=True, mode="lockstep", decisions=newest + 600)
    assert training.ended() == 0, training.text
    table.add("kill -9 of a worker, lock-step", "checkpoint, exit 75; resumed to the end", seconds)


def test_where_every_environment_is_broken_the_job_ends_with_a_checkpoint(training: Training, table: Table) -> None:
    training.begin(faults="{300: break}")
    assert training.ended() == 2, training.text
    assert re.search(r"actor 1 has left: the environment failed 10 times in a row", training.text)
    assert "--resume" in training.said[-1][1]
    assert training.checkpoints()
    table.add("an environment that never recovers", "actors leave; checkpoint, exit 2", 0.0)
