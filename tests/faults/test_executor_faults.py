"""Everything that can go wrong under an executor, done to real processes. ``RLCTL_FAULTS=full`` does all of it.

Programs keep a log of their own, ``evidence`` in the working folder, so that what ran twice is judged by what ran. The
table says how often each fault was tried, results lost, programs run again, things left behind, and seconds to notice.
"""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import forms
import numpy as np
import pytest
from logged_programs import logged, shell, waiting
from small_disk import fill

from rlctl.core.errors import JournalError, LaunchError
from rlctl.core.machine import Capacity
from rlctl.core.task import Failure, Resources, TaskId, TaskSpec, TaskState
from rlctl.executors import LocalExecutor, TaskFailed, WorkerDied
from rlctl.executors.event_log import Journal
from rlctl.executors.local.backend import LocalBackend
from rlctl.executors.local.options import LocalOptions
from rlctl.executors.local.pid_file import LOCK, TASK
from rlctl.executors.local.processes import boot, family, start_time
from rlctl.executors.local.supervisor_client import SupervisorClient
from rlctl.system.mpi import find_mpiexec

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

FULL = forms.full("FAULTS")
SEED = int(os.environ.get("RLCTL_FAULTS_SEED", "0"))
PATIENCE_S = 60.0
SHARED = Path("/dev/shm")


@dataclass
class Row:
    """One line of the table."""

    kind: str
    tried: int = 0
    lost: int = 0
    again: int = 0
    left: int = 0
    noticed_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        times = f"{statistics.median(self.noticed_s):8.2f}{max(self.noticed_s):8.2f}" if self.noticed_s else ""
        return f"{self.kind:56}" + "".join(f"{n:>8}" for n in (self.tried, self.lost, self.again, self.left)) + times


HEAD = f"{'fault':56}" + "".join(f"{word:>8}" for word in ("tried", "lost", "again", "left", "median", "max"))
TABLE: list[Row] = []


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    print("\n" + "\n".join([HEAD, *map(str, TABLE)]))


@contextlib.contextmanager
def judged(kind: str) -> Iterator[Row]:
    row = Row(kind)
    TABLE.append(row)
    yield row
    assert row.tried
    assert (row.lost, row.again, row.left) == (0, 0, 0), f"RLCTL_FAULTS_SEED={SEED}\n{HEAD}\n{row}"


def times(full: int, short: int) -> range:
    return range(full if FULL else short)


def chance(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([SEED, *key]))


def until(condition: Callable[[], Any], what: object) -> Any:
    end_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end_s, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.002)
    return found


def marked(token: str) -> list[int]:
    """Processes that a supervisor of this token has started, or that those have."""
    return family([], f"{TASK}={token}:".encode())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def client_of(executor: LocalExecutor) -> SupervisorClient:
    backend = executor._dispatch.pools[0].backend
    assert isinstance(backend, LocalBackend)
    return backend.programs.client


class Opened:
    """An eager executor in a folder, and what is left of it when it is closed."""

    def __init__(self, folder: Path, cores: int = 2, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.executor = LocalExecutor(
            Capacity(cores=cores),
            folder,
            eager=True,
            options=LocalOptions(**{"lease_s": 0.0, **settings}, pin=False, oversubscribe=True),
        )
        self.token = client_of(self.executor).token

    def close(self, row: Row) -> None:
        self.executor.close()
        row.left += len(marked(self.token)) + (SHARED / f"rlctl-{self.token}").exists()
        row.left += (self.folder / "exits").exists()

    def reaches(self, uid: str, state: TaskState) -> None:
        until(lambda: any((e.uid, e.state) == (uid, state) for e in self.executor.events()), (uid, state))


def begun(evidence: Path) -> Counter[str]:
    """How often a program of each uid has really begun."""
    if not evidence.exists():
        return Counter()
    lines = [line.split() for line in evidence.read_text().splitlines()]
    return Counter(words[1].rpartition(".")[0] for words in lines if words[0] == "begin")


# Workers and programs.


def tell_and_hang(path: str) -> None:
    Path(path + ".new").write_text(str(os.getpid()))
    os.rename(path + ".new", path)
    time.sleep(300.0)


def test_a_killed_worker_fails_its_call_only(tmp_path: Path) -> None:
    with judged("worker, SIGKILL") as row:
        opened = Opened(tmp_path)
        for number in times(20, 2):
            told = tmp_path / f"pid{number}"
            future = opened.executor.submit(tell_and_hang, str(told))
            others = [opened.executor.submit(pow, 2, n) for n in range(3)]
            until(told.exists, "the call runs")
            os.kill(int(told.read_text()), signal.SIGKILL)
            killed_s = time.monotonic()
            assert isinstance(future.exception(PATIENCE_S), WorkerDied)
            row.noticed_s.append(time.monotonic() - killed_s)
            row.lost += [other.result(PATIENCE_S) for other in others] != [1, 2, 4]
            row.tried += 1
        opened.close(row)


STUBBORN = "trap '' TERM; echo $$ > $0.pid; while true; do sleep 0.01; done"
APART = (
    "trap '' TERM; (setsid sleep 300; true) & "
    "setsid sh -c \"trap '' TERM; setsid sleep 300 & sleep 300\" & touch $0.pid; "
)


@pytest.mark.parametrize(("code", "kind"), [(STUBBORN, "itself"), (APART + "sleep 300", "grandchildren apart")])
def test_a_program_that_ignores_sigterm_is_dead_when_it_is_said_to_be_canceled(
    tmp_path: Path, code: str, kind: str
) -> None:
    with judged(f"program ignores SIGTERM, {kind}") as row:
        opened = Opened(tmp_path)
        for number in times(20, 2):
            future = opened.executor.submit_task(shell(f"t{number}", code))
            until((tmp_path / f"t{number}.pid").exists, "it runs")
            asked_s = time.monotonic()
            future.stop(0.1)
            until(future.done, "it is canceled")
            row.noticed_s.append(time.monotonic() - asked_s)
            row.left += len(marked(opened.token))
            row.lost += future.state is not TaskState.CANCELED
            row.tried += 1
        opened.close(row)


def test_grandchildren_that_outlive_a_program_are_dead_when_it_is_said_to_have_ended(tmp_path: Path) -> None:
    with judged("program ends, leaves grandchildren apart") as row:
        opened = Opened(tmp_path)
        for number in times(10, 1):
            began_s = time.monotonic()
            assert opened.executor.submit_task(shell(f"t{number}", APART)).result(PATIENCE_S) == {}
            row.noticed_s.append(time.monotonic() - began_s)
            row.left += len(marked(opened.token))
            row.tried += 1
        opened.close(row)


@pytest.mark.skipif(find_mpiexec() is None, reason="needs mpiexec")
def test_a_killed_rank_ends_its_program(tmp_path: Path) -> None:
    code = "from mpi4py import MPI; import os, time; r = MPI.COMM_WORLD.rank; MPI.COMM_WORLD.Barrier()\n"
    code += "open(f'rank{r}.new', 'w').write(str(os.getpid())); os.rename(f'rank{r}.new', f'rank{r}'); time.sleep(300)"
    with judged("MPI rank, SIGKILL") as row:
        opened = Opened(tmp_path)
        for number in times(5, 1):
            spec = TaskSpec(
                TaskId(f"t{number}"), executable="python", arguments=("-c", code), resources=Resources(ranks=2)
            )
            future = opened.executor.submit_task(spec)
            ranks = [tmp_path / "rank0", tmp_path / "rank1"]
            until(lambda ranks=ranks: all(rank.exists() for rank in ranks), "both run")
            os.kill(int(ranks[number % 2].read_text()), signal.SIGKILL)
            killed_s = time.monotonic()
            error = future.exception(PATIENCE_S)
            row.noticed_s.append(time.monotonic() - killed_s)
            assert isinstance(error, TaskFailed)
            row.lost += error.result.failure is not Failure.SIGNAL
            row.left += len(marked(opened.token))
            row.tried += 1
            for rank in ranks:
                rank.unlink()
        opened.close(row)


FLOOD = "while true; do echo 0123456789012345678901234567890123456789012345678901234567890123456789; done"
MEMORY = "import time; held = bytearray(200 * 2**20); time.sleep(300)"


@pytest.mark.parametrize("failure", [Failure.TIMEOUT, Failure.OUTPUT, Failure.MEMORY])
def test_a_program_beyond_a_limit_is_stopped(tmp_path: Path, failure: Failure) -> None:
    with judged(f"program beyond its limit: {failure}") as row:
        opened = Opened(tmp_path, output_mb=1.0)
        for number in times(10, 1):
            uid = TaskId(f"t{number}")
            spec = {
                Failure.TIMEOUT: shell(uid, "trap '' TERM; while true; do sleep 0.01; done", walltime_s=0.2),
                Failure.OUTPUT: shell(uid, FLOOD),
                Failure.MEMORY: TaskSpec(
                    uid,
                    executable="python",
                    arguments=("-c", MEMORY),
                    resources=Resources(memory_per_rank_mb=100),
                ),
            }[failure]
            began_s = time.monotonic()
            error = opened.executor.submit_task(spec).exception(PATIENCE_S)
            row.noticed_s.append(time.monotonic() - began_s)
            assert isinstance(error, TaskFailed)
            row.lost += error.result.failure is not failure
            row.left += len(marked(opened.token))
            row.tried += 1
            log = tmp_path / "logs" / f"{uid}.1.out"
            assert log.stat().st_blocks * 512 < 64 * 2**20
        opened.close(row)


def test_a_stranger_with_the_number_of_a_program_is_left_alone(tmp_path: Path) -> None:
    with judged("process number that is a stranger's by now") as row:
        for number in times(10, 2):
            folder = tmp_path / str(number)
            folder.mkdir()
            with subprocess.Popen(["sleep", "300"], start_new_session=True) as stranger:
                began = start_time(stranger.pid)
                (folder / LOCK).write_text(f"{'0' * 31}{number} {boot()}\n+{stranger.pid} {began - 1}\n")
                supervision = SupervisorClient(folder, dict(os.environ))
                assert supervision._process is not None
                supervision._process.kill()  # its successor is handed a number that was used again meanwhile
                supervision.replace({"a.1": {"pid": stranger.pid, "start": began - 1}})
                asked_s = time.monotonic()
                heard: list[Any] = []
                until(
                    lambda supervision=supervision, heard=heard: (
                        heard.extend(supervision.receive() or ()) or any(m["event"] == "ended" for m in heard)
                    ),
                    "it is known to have ended",
                )
                row.noticed_s.append(time.monotonic() - asked_s)
                supervision.send("stop", key="a.1", grace_s=0.0)
                supervision.send("signal", key="a.1", number=9)
                supervision.close()
                row.lost += not alive(stranger.pid)
                row.tried += 1
                stranger.kill()


def test_a_cancel_that_races_with_the_end_leaves_one_end(tmp_path: Path) -> None:
    with judged("cancel races with the end") as row:
        opened = Opened(tmp_path, cores=8)
        random = chance(1)
        for batch in times(100, 3):
            specs = [TaskSpec(TaskId(f"{batch}-{n}"), executable="/bin/true") for n in range(100)]
            began_s = time.monotonic()
            futures = opened.executor.submit_tasks(specs)
            victims = random.permutation(100)

            def cancel(victims: Any = victims, specs: Any = specs) -> None:
                for victim in victims:
                    opened.executor.cancel(specs[victim].uid, 1.0)

            thread = threading.Timer(float(random.uniform(0.0, 0.1)), cancel)
            thread.start()
            late = cf.wait(futures, PATIENCE_S).not_done
            thread.join()
            row.noticed_s.append(time.monotonic() - began_s)
            row.lost += len(late) + sum(f.state not in (TaskState.DONE, TaskState.CANCELED) for f in futures)
            row.tried += len(specs)
        finals = Counter(event.uid for event in opened.executor.events() if event.state.final)
        row.again += sum(count - 1 for count in finals.values())
        assert opened.executor.status().free_cores == 8
        opened.close(row)


@pytest.mark.parametrize("jump_s", [-1e6, 1e6])
def test_nothing_depends_on_the_clock_of_the_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    with judged(f"clock of the day jumps by {jump_s:+g} s") as row:
        now = time.time
        opened = Opened(tmp_path)
        hanging = opened.executor.submit_task(shell("hangs", "sleep 300", walltime_s=0.5))
        opened.reaches("hangs", TaskState.RUNNING)
        monkeypatch.setattr(time, "time", lambda: now() + jump_s)
        began_s = time.monotonic()
        row.lost += opened.executor.submit_task(logged("a", tmp_path / "evidence")).result(PATIENCE_S) != {"told": "a"}
        error = hanging.exception(PATIENCE_S)
        assert isinstance(error, TaskFailed)
        row.lost += error.result.failure is not Failure.TIMEOUT
        row.noticed_s.append(time.monotonic() - began_s)
        events = opened.executor.events()
        assert [event.time_s for event in events] == sorted(event.time_s for event in events)
        assert 0.5 <= error.result.ended_s - error.result.started_s < abs(jump_s) / 2
        row.tried += 1
        opened.close(row)


def test_a_killed_supervisor_is_replaced_and_nothing_runs_twice(tmp_path: Path) -> None:
    with judged("supervisor, SIGKILL") as row:
        for number in times(20, 2):
            random = chance(2, number)
            opened = Opened(tmp_path / str(number))
            evidence = tmp_path / str(number) / "evidence"
            futures = opened.executor.submit_tasks([logged(f"t{n}", evidence, 0.2) for n in range(6)])
            until(evidence.exists, "something runs")
            time.sleep(float(random.uniform(0.0, 0.4)))
            process = client_of(opened.executor)._process
            assert process is not None
            process.kill()
            killed_s = time.monotonic()
            for n, future in enumerate(futures):
                row.lost += future.exception(PATIENCE_S) is not None or future.result() != {"told": f"t{n}"}
            row.noticed_s.append(time.monotonic() - killed_s)
            # One that had just been asked for may have begun unseen: it is stopped, then runs as the next attempt.
            ended = Counter(
                line.split()[1].rpartition(".")[0]
                for line in evidence.read_text().splitlines()
                if line.startswith("end")
            )
            row.again += sum(count - 1 for count in ended.values())
            row.tried += 1
            opened.close(row)


# Controllers.

CONTROLLER = """
import json, os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from logged_programs import ONCE, logged, shell
from rlctl.executors import LocalExecutor, TaskFailed
from rlctl.core.machine import Capacity
from rlctl.executors.event_log import Journal
from rlctl.executors.local.options import LocalOptions

folder, point, evidence, count = Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), 0

def counted(plain):
    def wrapped(*arguments, **named):
        tick()
        result = plain(*arguments, **named)
        tick()
        return result
    return wrapped

def tick():
    global count
    count += 1
    if count == point:
        os.kill(os.getpid(), signal.SIGKILL)

path = folder / "journal.db"
journal = Journal.open(path) if path.exists() else Journal.create(path, {})
for name in ("append", "write", "_flush"):
    setattr(Journal, name, counted(getattr(Journal, name)))
with journal:
    settings = LocalOptions(pin=False, oversubscribe=True, lease_s=20.0)
    executor = LocalExecutor(Capacity(cores=2), folder / "work", eager=True, options=settings)
    executor.attach(journal)
    specs = [logged(f"t{n}", evidence, 0.05 * (n % 3)) for n in range(6)]
    specs.insert(2, shell("once", ONCE, str(evidence), retries=1, result_file="once.json"))
    futures = executor.submit_tasks(specs)
    told = {future.uid: future.result(60.0) for future in futures}
    attempts = {future.uid: future.attempt for future in futures}
    executor.shutdown()
print(json.dumps([told, attempts, count]))
"""


class Controlled:
    """A folder in which controllers live and die."""

    def __init__(self, folder: Path, evidence: Path | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.evidence = evidence or folder / "evidence"
        self.tokens: set[str] = set()
        self.finished: set[str] = set()

    def live(self, point: int = 0) -> list[Any] | None:
        """One controller; None if it was killed."""
        here = str(Path(__file__).parent)
        command = [sys.executable, "-c", CONTROLLER, here, str(self.folder), str(point), str(self.evidence)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        lock = self.folder / "work" / LOCK
        if lock.exists() and (words := lock.read_text().split()):
            self.tokens.add(words[0])
        if done.returncode == -signal.SIGKILL:
            return None
        assert done.returncode == 0, done.stderr
        answer: list[Any] = json.loads(done.stdout)
        return answer

    def known(self) -> dict[str, int]:
        """Uids of recorded final results, and how often their programs have begun by then."""
        with Journal.open(self.folder / "journal.db") as journal:
            records = journal.records()
        final = {r.data["uid"] for r in records if "result" in r.data}
        count = begun(self.evidence)
        return {uid: count[uid] for uid in final}

    def supervisor(self) -> int | None:
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if (
                    name.isdigit()
                    and Path(os.readlink(f"/proc/{name}/cwd")) == self.folder / "work"
                    and b"rlctl.executors.local.supervisor" in Path(f"/proc/{name}/cmdline").read_bytes()
                ):
                    return int(name)
        return None

    def judge(self, row: Row, answer: list[Any]) -> None:
        told, _, _ = answer
        row.lost += sum(told[uid] != {"told": uid} for uid in told)
        row.lost += len(told) != 7
        row.left += sum(len(marked(token)) + (SHARED / f"rlctl-{token}").exists() for token in self.tokens)
        row.left += (self.folder / "work" / "exits").exists()
        row.left += self.supervisor() is not None


def test_a_controller_killed_at_each_journal_write_is_followed_by_one_that_takes_over(tmp_path: Path) -> None:
    with judged("controller, SIGKILL at each journal write") as row:
        counted = Controlled(tmp_path / "counted").live()
        assert counted is not None
        count = counted[2]
        points = range(1, count + 1) if FULL else sorted(chance(3).choice(count, 3, replace=False) + 1)
        for point in points:
            random = chance(4, int(point))
            place = Controlled(tmp_path / str(point))
            if place.live(int(point)) is not None:
                continue  # groups of records differ from life to life: this one had fewer
            row.tried += 1
            known = place.known()
            time.sleep(float(random.choice([0.0, 0.3])))  # something may end while nobody is there
            began_s = time.monotonic()
            answer = place.live(int(random.integers(1, 20)) if random.random() < 0.5 else 0)
            if answer is None:
                row.tried += 1
                known |= place.known()
                answer = place.live()
            assert answer is not None
            row.noticed_s.append(time.monotonic() - began_s)
            count_of = begun(place.evidence)
            row.again += sum(count_of[uid] - times for uid, times in known.items())
            row.again += sum(count_of[uid] - 1 for uid in answer[0] if uid != "once")
            row.again += count_of["once"] - 2
            place.judge(row, answer)


def test_a_controller_killed_with_its_supervisor_is_followed_by_one_that_starts_again(tmp_path: Path) -> None:
    with judged("controller and supervisor, SIGKILL") as row:
        for number in times(20, 2):
            random = chance(5, number)
            place = Controlled(tmp_path / str(number))
            here = str(Path(__file__).parent)
            command = [sys.executable, "-c", CONTROLLER, here, str(place.folder), "0", str(place.evidence)]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as controller:
                until(place.evidence.exists, "something runs")
                time.sleep(float(random.uniform(0.0, 0.3)))
                supervisor = place.supervisor()
                for pid in filter(None, [supervisor, controller.pid]):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            place.tokens.add((place.folder / "work" / LOCK).read_text().split()[0])
            known = place.known()
            began_s = time.monotonic()
            answer = place.live()
            assert answer is not None
            row.noticed_s.append(time.monotonic() - began_s)
            count_of = begun(place.evidence)
            row.again += sum(count_of[uid] - before for uid, before in known.items())
            row.tried += 1
            place.judge(row, answer)


def test_what_runs_is_adopted_and_what_the_lease_ended_is_not_taken_for_done(tmp_path: Path) -> None:
    with judged("controller, SIGKILL, lease over before the next") as row:
        code = (
            "import sys, time; from pathlib import Path; sys.path[:0] = [sys.argv[1]]; folder = Path(sys.argv[2])\n"
            "from logged_programs import logged; from rlctl.executors import LocalExecutor, Capacity\n"
            "from rlctl.executors.event_log import Journal; from rlctl.executors.local.options import LocalOptions\n"
            "journal = Journal.create(folder / 'journal.db', {})\n"
            "settings = LocalOptions(lease_s=0.1, pin=False, oversubscribe=True)\n"
            "executor = LocalExecutor(Capacity(), folder / 'work', eager=True, options=settings)\n"
            "executor.attach(journal); executor.submit_task(logged('a', folder / 'evidence', 300)); time.sleep(300)"
        )
        command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
        with subprocess.Popen(command) as controller:
            until((tmp_path / "evidence").exists, "it runs")
            controller.kill()
        token = (tmp_path / "work" / LOCK).read_text().split()[0]
        killed_s = time.monotonic()
        until(lambda: not marked(token), "the lease is over")
        row.noticed_s.append(time.monotonic() - killed_s)
        opened = Opened(tmp_path / "work")
        with Journal.open(tmp_path / "journal.db") as journal:
            opened.executor.attach(journal)
            future = opened.executor.submit_task(logged("a", tmp_path / "evidence", 0.01))
            row.lost += future.result(PATIENCE_S) != {"told": "a"}
            assert future.attempt == 2
            opened.close(row)
        row.tried += 1


def test_what_ends_before_a_later_controller_asks_for_it_again_is_not_lost(tmp_path: Path) -> None:
    work = tmp_path / "work"
    code = (
        "import sys, time; from pathlib import Path; sys.path[:0] = [sys.argv[1]]; folder = Path(sys.argv[2])\n"
        "from logged_programs import waiting; from rlctl.executors import LocalExecutor, Capacity\n"
        "from rlctl.executors.event_log import Journal; from rlctl.executors.local.options import LocalOptions\n"
        "journal = Journal.create(folder / 'journal.db', {})\n"
        "settings = LocalOptions(lease_s=60.0, pin=False, oversubscribe=True)\n"
        "executor = LocalExecutor(Capacity(), folder / 'work', eager=True, options=settings)\n"
        "executor.attach(journal); executor.submit_task(waiting('a')); time.sleep(300)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(command) as controller:
        until((work / "begun").exists, "it runs")
        controller.kill()
    with Journal.open(tmp_path / "journal.db") as journal:
        settings = LocalOptions(lease_s=60.0, pin=False, oversubscribe=True)
        executor = LocalExecutor(Capacity(), work, options=settings)  # nothing starts before ``wait``
        executor.attach(journal)
        (work / "go").touch()
        until(lambda: client_of(executor).left.ended, "its end is told")
        executor.submit_task(waiting("a"))
        states = [event.state for event in executor.wait(PATIENCE_S)]
        while states[-1] is not TaskState.DONE and (more := executor.wait(PATIENCE_S)):
            states += [event.state for event in more]
        executor.close()
    assert states[-1] is TaskState.DONE
    assert (work / "begun").read_text() == "x\n"


def test_a_second_controller_in_a_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    with judged("two controllers on one folder") as row:
        opened = Opened(tmp_path)
        future = opened.executor.submit_task(logged("a", tmp_path / "evidence", 1.0))
        until((tmp_path / "evidence").exists, "it runs")
        for _ in times(10, 1):
            began_s = time.monotonic()
            with pytest.raises(LaunchError, match="another controller works here") as refused:
                Opened(tmp_path)
            row.noticed_s.append(time.monotonic() - began_s)
            assert "\n" not in str(refused.value)
            row.tried += 1
        row.lost += future.result(PATIENCE_S) != {"told": "a"}
        row.again += begun(tmp_path / "evidence")["a"] - 1
        opened.close(row)


# Disks.


def test_a_full_disk_is_a_clean_error_and_nothing_acknowledged_is_lost(tmp_path: Path, disk: Path) -> None:
    with judged("disk full") as row:
        for number in times(10, 1):
            evidence = tmp_path / f"evidence{number}"
            base = disk / str(number)
            base.mkdir()
            journal = Journal.create(base / "journal.db", {})
            opened = Opened(base / "work")
            opened.executor.attach(journal)
            first = opened.executor.submit_tasks([logged(f"t{n}", evidence, 0.01) for n in range(4)])
            acknowledged = {future.uid: future.result(PATIENCE_S) for future in first}
            filler = fill(disk)
            filled_s = time.monotonic()
            refused = ""
            for n in range(4, 10_000):  # SQLite's log may have some room left
                try:
                    future = opened.executor.submit_task(logged(f"t{n}", evidence, 0.01))
                    if future.done():
                        acknowledged[future.uid] = future.result()
                except JournalError as error:
                    refused = str(error)
                    break
            row.noticed_s.append(time.monotonic() - filled_s)
            assert "free some space" in refused
            assert "\n" not in refused
            opened.executor.close()
            with contextlib.suppress(JournalError):
                journal.close()
            row.left += len(marked(opened.token))
            filler.unlink()
            before = begun(evidence)
            opened = Opened(base / "work")
            with Journal.open(base / "journal.db") as journal:
                opened.executor.attach(journal)
                for uid, values in acknowledged.items():
                    again = opened.executor.submit_task(logged(uid, evidence))
                    row.lost += again.result(PATIENCE_S) != values
                opened.close(row)
            row.again += sum(begun(evidence)[uid] - before[uid] for uid in acknowledged)
            row.tried += 1


def test_a_torn_end_of_the_journal_loses_what_was_torn_and_nothing_before(tmp_path: Path) -> None:
    with judged("controller and supervisor killed, log cut at a random byte") as row:
        for number in times(20, 2):
            random = chance(6, number)
            place = Controlled(tmp_path / str(number))
            if place.live(int(random.integers(15, 40))) is not None:
                continue
            if (supervisor := place.supervisor()) is not None:
                os.kill(supervisor, signal.SIGKILL)
            log = place.folder / "journal.db-wal"
            with Journal.open(place.folder / "journal.db", read_only=True) as journal:
                whole = journal.records()
            if log.exists():
                os.truncate(log, int(random.integers(0, log.stat().st_size + 1)))
            row.tried += 1
            try:
                known = place.known()
            except JournalError as refused:
                row.left += "\n" in str(refused)
                Opened(place.folder / "work").close(row)  # another run in this folder clears up
                continue
            with Journal.open(place.folder / "journal.db") as journal:
                kept = journal.records()
            assert kept == whole[: len(kept)]
            began_s = time.monotonic()
            answer = place.live()
            assert answer is not None
            row.noticed_s.append(time.monotonic() - began_s)
            row.again += sum(begun(place.evidence)[uid] - before for uid, before in known.items())
            place.judge(row, answer)
