"""The executor on Parsl's workers: what is peculiar to workers that come, go and die, and share but a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from parsl_workers import executor as workers_of_parsl
from parsl_workers import needs_parsl

from rlctl.core.errors import ConfigError, LaunchError
from rlctl.core.machine import Capacity
from rlctl.core.task import Resources, TaskId, TaskSpec, TaskState
from rlctl.executors import Executor, WorkerDied
from rlctl.executors.event_log import Journal
from rlctl.executors.factory import PoolPlan
from rlctl.executors.futures import ExecutorBroken
from rlctl.executors.local.processes import family
from rlctl.system.mpi import find_mpiexec

pytestmark = [needs_parsl, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")]

MARK = "RLCTL_PARSL_TEST"
PATIENCE_S = 120.0
S = TaskState


class Site:
    """A folder, and all processes that come of what is opened in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"{MARK}={folder}\0".encode()
        self.relics = False  # whether some are expected
        self.semaphores: set[str] = set()  # of managers that were looked at
        self._opened: list[Any] = []

    def open(
        self,
        workers: int = 1,
        capacity: Capacity | None = None,
        executor: Any = None,
        *,
        eager: bool = True,
        lease_s: float = 5.0,
    ) -> Any:
        from rlctl.executors.parsl.backend import ParslBackend
        from rlctl.executors.parsl.options import ParslOptions

        backend = ParslBackend(
            executor or workers_of_parsl(workers),
            capacity or Capacity(nodes=workers, cores=1),
            self.folder / "work",
            ParslOptions(lease_s=lease_s),
        )
        opened = Executor(backend, eager=eager)
        self._opened.append(opened)
        return opened

    @property
    def executor(self) -> Any:
        """The first that was opened."""
        return self._opened[0]

    def processes(self) -> list[psutil.Process]:
        found = []
        for pid in family([], self.mark):
            with contextlib.suppress(psutil.Error):
                found.append(psutil.Process(pid))
        return found

    def having(self, *words: str) -> list[psutil.Process]:
        """Those with all of these words in their command line, or of that name."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if all(word in line for word in words):
                    found.append(process)
        return found

    def manager(self) -> psutil.Process:
        manager = next(p for p in self.having("process_worker_pool.py", "--block_id") if "bash" not in p.name())
        with contextlib.suppress(OSError):
            self.semaphores |= set(re.findall(r"/dev/shm/sem\.\S+", Path(f"/proc/{manager.pid}/maps").read_text()))
        return manager

    def workers(self) -> list[psutil.Process]:
        return [p for p in self.having("multiprocessing.spawn") if p.ppid() == self.manager().pid and _heavy(p)]

    def close(self) -> None:
        for opened in self._opened:
            opened.close()


def _heavy(process: psutil.Process) -> bool:
    """A worker has loaded our code; Parsl's server process has not."""
    with contextlib.suppress(psutil.Error):
        return any(child for child in process.children())
    return False


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Site]:
    """Nothing of it is alive afterwards, and nothing is left in shared memory."""
    site = Site(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, str(folder))
        try:
            yield site
        finally:
            site.close()
    until(lambda: not site.processes(), lambda: [p.cmdline() for p in site.processes()])
    until(lambda: not any(map(os.path.exists, site.semaphores)), site.semaphores)
    work = folder / "work"
    left = [*work.glob("parsl/session-*"), *work.glob("parsl/*.lease"), work / "exits", work / "parsl" / "running"]
    assert site.relics or not [path for path in left if path.exists()]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with opened(tmp_path) as site:
        yield site


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """For several tests: one worker, which comes back when it was killed."""
    with opened(tmp_path_factory.mktemp("common")) as site:
        site.open(1, Capacity(nodes=1, cores=2))
        yield site


def until(condition: Callable[[], Any], what: object = "", patience_s: float = PATIENCE_S) -> Any:
    end_s = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < end_s, f"not within {patience_s} s: {what() if callable(what) else what}"
        time.sleep(0.01)
    return found


def states(executor: Any, uid: str) -> list[TaskState]:
    return [event.state for event in executor.events() if event.uid == uid]


def reaches(executor: Any, uid: str, state: TaskState, times: int = 1) -> None:
    until(lambda: states(executor, uid).count(state) >= times, lambda: (uid, state, states(executor, uid)))


def shell(uid: str, script: str, **options: Any) -> TaskSpec:
    return TaskSpec(TaskId(uid), executable="sh", arguments=("-c", script), **options)


def stubborn(uid: str, **options: Any) -> TaskSpec:
    """Its first attempt tells its number and stays; later ones end at once."""
    return shell(uid, f"echo $$ >> {uid}.pids; test $(wc -l < {uid}.pids) -gt 1 || exec sleep 300", **options)


def begun(site: Site, uid: str) -> list[int]:
    """Numbers of the attempts that have begun."""
    with contextlib.suppress(OSError):
        return [int(line) for line in (site.folder / "work" / f"{uid}.pids").read_text().split()]
    return []


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def linger(path: str) -> dict[str, Any]:
    """The first call tells its number and stays; later ones end at once."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    if len(Path(path).read_text().split()) == 1:
        time.sleep(300.0)
    return {}


# Places.


def test_a_task_has_its_worker_for_itself_and_what_fits_none_is_refused(site: Site) -> None:
    executor = site.open(2, Capacity(nodes=2, cores=4))
    first, second = (executor.submit_task(shell(uid, "exec sleep 300")) for uid in "ab")
    assert (executor.status().nodes, states(executor, "a")) == (0, [S.QUEUED]), "no worker has connected yet"
    for uid in "ab":
        reaches(executor, uid, S.RUNNING)
    third = executor.submit_task(shell("c", "true"))
    assert executor.status().waiting == 1
    assert [running.nodes for running in executor.status().running] == [{0: 1}, {1: 1}]
    for need in (
        Resources(cores_per_rank=5),
        Resources(ranks=5),
        Resources(ranks=2, nodes=2),
        Resources(gpus_per_rank=1),
    ):
        with pytest.raises(LaunchError, match=r"task wide"):
            executor.submit_task(shell("wide", "true", resources=need))
    first.stop(0.0)
    assert third.result(PATIENCE_S) == {}
    second.stop(0.0)


@pytest.mark.skipif(find_mpiexec() is None, reason="needs an mpiexec")
def test_a_program_of_several_ranks_is_started_within_its_worker(common: Site) -> None:
    code = (
        "import json; from mpi4py import MPI; c = MPI.COMM_WORLD; ranks = c.gather(c.rank)\n"
        "if c.rank == 0: json.dump({'ranks': ranks}, open('r.json', 'w'))"
    )
    spec = TaskSpec(
        TaskId("r"), executable="python", arguments=("-c", code), resources=Resources(ranks=2), result_file="r.json"
    )
    assert common.executor.submit_task(spec).result(PATIENCE_S) == {"ranks": [0, 1]}


def test_two_pools_of_workers_serve_one_executor(site: Site) -> None:
    from rlctl.executors.parsl.backend import ParslBackend
    from rlctl.executors.parsl.options import ParslOptions

    work = site.folder / "work"
    with Executor(
        [
            PoolPlan(ParslBackend(workers_of_parsl(1), Capacity(), work, ParslOptions(lease_s=5.0), pool=name), name)
            for name in ("first", "second")
        ]
    ) as executor:
        futures = [
            executor.submit_task(shell(pool, f"echo '{{}}' > {pool}.json", pool=pool)) for pool in ("first", "second")
        ]
        assert [future.result(PATIENCE_S) for future in futures] == [{}, {}]
    assert {path.name for path in work.glob("parsl*")} == {"parsl-first", "parsl-second"}


# Deaths.


@pytest.mark.parametrize("who", ["worker", "manager"])
def test_a_program_whose_worker_or_manager_is_killed_is_dead_before_it_runs_again(common: Site, who: str) -> None:
    executor = common.executor
    future = executor.submit_task(stubborn(who))
    (pid,) = until(lambda: begun(common, who), "it has begun")
    (worker,) = common.workers()
    manager = common.manager()
    (worker if who == "worker" else manager).kill()
    until(lambda: not alive(pid), "it is stopped", 5.0)
    assert len(begun(common, who)) == 1
    assert future.result(PATIENCE_S) == {}
    assert (future.attempt, len(begun(common, who))) == (2, 2)
    assert (common.manager().pid == manager.pid) is (who == "worker"), "its block has been replaced"
    assert S.PREEMPTED in states(executor, who)


def test_a_program_that_has_ended_when_its_worker_is_killed_is_not_run_again(common: Site) -> None:
    executor = common.executor
    future = executor.submit_task(shell("e", "echo $$ >> e.pids; while ! test -e go; do sleep 0.01; done"))
    until(lambda: begun(common, "e"), "it has begun")
    (worker,) = common.workers()
    worker.suspend()  # it cannot tell any more
    (common.folder / "work" / "go").touch()
    until(lambda: not alive(begun(common, "e")[0]), "it has ended")
    worker.kill()
    assert future.result(PATIENCE_S) == {}
    assert (future.attempt, len(begun(common, "e"))) == (1, 1)


def test_a_named_call_runs_again_and_a_submitted_one_has_failed_when_their_worker_is_killed(common: Site) -> None:
    executor = common.executor
    path = common.folder / "named"
    named = executor.submit_task(
        TaskSpec(TaskId("n"), function=f"{__name__}:linger", parameters={"path": str(path)}),
    )
    until(lambda: path.exists() and path.read_text().endswith("\n"), "it has begun")
    (worker,) = common.workers()
    worker.kill()
    assert named.result(PATIENCE_S) == {}
    submitted = executor.submit(linger, str(common.folder / "submitted"))
    until((common.folder / "submitted").exists, "it has begun")
    (worker,) = common.workers()
    worker.kill()
    assert isinstance(submitted.exception(PATIENCE_S), WorkerDied)
    assert executor.submit(pow, 2, 3).result(PATIENCE_S) == 8


def test_a_program_that_outlives_its_supervisor_is_stopped_and_lost(common: Site) -> None:
    executor = common.executor
    future = executor.submit_task(stubborn("v"))
    (pid,) = until(lambda: begun(common, "v"), "it has begun")
    (supervisor,) = common.having("rlctl.executors.local.supervisor")
    supervisor.kill()
    assert future.result(PATIENCE_S) == {}
    assert not alive(pid)
    assert future.attempt == 2


def test_of_a_manager_that_is_killed_before_it_did_anything_nothing_is_left(site: Site) -> None:
    executor = site.open(1)
    until(lambda: executor.status().nodes, "its worker has connected")
    manager = site.manager()
    manager.kill()
    assert site.semaphores
    assert executor.submit_task(shell("a", "true")).result(PATIENCE_S) == {}
    assert site.manager().pid != manager.pid


def test_without_its_interchange_an_executor_says_so_and_leaves_nothing(site: Site) -> None:
    executor = site.open(1, eager=False)
    executor.submit_task(stubborn("a"))
    assert executor.wait(PATIENCE_S)
    (pid,) = until(lambda: begun(site, "a"), "it has begun")
    (keeper,) = site.having("rlctl.executors.parsl.block_watchdog")
    (interchange,) = keeper.children()
    interchange.kill()
    site.relics = True  # for the next controller
    until(lambda: executor._dispatch.broken is not None, "it is noticed")
    with pytest.raises(ExecutorBroken, match="interchange"):
        executor.wait(PATIENCE_S)
    executor.close()
    assert not alive(pid)


def test_blocks_that_never_start_a_worker_are_told_of(site: Site) -> None:
    parsl_executor = workers_of_parsl(1)
    parsl_executor.launch_cmd = "echo no such thing >&2; exit 3"
    parsl_executor.provider.__class__ = _impatient(type(parsl_executor.provider))
    executor = site.open(executor=parsl_executor)
    future = executor.submit(pow, 2, 3)
    assert "blocks of Parsl have ended without a worker" in str(future.exception(PATIENCE_S))
    with pytest.raises(ExecutorBroken, match="submit_scripts"):
        executor.submit(pow, 2, 3)


def _impatient(kind: type) -> type:
    return type(kind.__name__, (kind,), {"status_polling_interval": 0.2})


# The controller's death.

CONTROLLER = """
import os, sys, time
from pathlib import Path
from parsl_workers import executor as workers_of_parsl
from rlctl.core.machine import Capacity
from rlctl.executors import Executor
from rlctl.executors.event_log import Journal
from rlctl.executors.parsl.backend import ParslBackend
from rlctl.executors.parsl.options import ParslOptions
from rlctl.core.task import TaskId, TaskSpec

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    journal = Journal.create(folder / "journal.db", {})
    options = ParslOptions(lease_s=5.0)
    executor = Executor(ParslBackend(workers_of_parsl(2), Capacity(nodes=2), folder / "work", options))
    executor.attach(journal)
    for uid in ("ends", "stays"):
        script = "test -e go" if uid == "ends" else "test $(wc -l < stays.pids) -gt 1"
        script = f"echo $$ >> {uid}.pids; until {script}; do sleep 0.02; done; echo '{{}}' > {uid}.json"
        spec = TaskSpec(TaskId(uid), executable="sh", arguments=("-c", script), result_file=f"{uid}.json")
        executor.submit_task(spec)
    time.sleep(300.0)
"""


@pytest.fixture
def killed(site: Site) -> Site:
    """A controller was killed while two programs ran; one of them ends soon."""
    script = site.folder / "controller.py"
    script.write_text(CONTROLLER)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    controller = subprocess.Popen([sys.executable, script, site.folder], env={**os.environ, "PYTHONPATH": path})
    until(lambda: begun(site, "ends") and begun(site, "stays"), "both have begun")
    controller.kill()
    controller.wait()
    (site.folder / "work" / "go").touch()
    until(lambda: not alive(begun(site, "ends")[0]), "it has ended")
    return site


def test_when_the_controller_was_killed_everything_ends_within_the_lease(killed: Site) -> None:
    assert killed.processes()
    until(lambda: not killed.processes(), lambda: [p.cmdline() for p in killed.processes()], 5.0 + 5.0 + 5.0)
    killed.relics = True
    ends = json.loads((killed.folder / "work" / "exits" / "ends.1.json").read_text())
    stays = json.loads((killed.folder / "work" / "exits" / "stays.1.json").read_text())
    assert (ends["code"], ends["why"], stays["why"]) == (0, None, "stopped")


def test_the_next_controller_finds_what_ended_and_runs_again_what_was_stopped(killed: Site) -> None:
    with Journal.open(killed.folder / "journal.db") as journal:
        old = {p.pid for p in killed.processes()}
        executor = killed.open(2)
        assert not alive(begun(killed, "stays")[0]), "it was stopped before anything begins"
        executor.attach(journal)
        specs = [TaskSpec(TaskId(uid), executable="sh", result_file=f"{uid}.json") for uid in ("ends", "stays")]
        script = "echo $$ >> stays.pids; echo '{}' > stays.json"
        specs[1] = shell("stays", script, result_file="stays.json")
        ends, stays = executor.submit_tasks(specs)
        assert ends.result(PATIENCE_S) == stays.result(PATIENCE_S) == {}
        assert (ends.attempt, stays.attempt) == (1, 2)
        assert (len(begun(killed, "ends")), len(begun(killed, "stays"))) == (1, 2)
        until(lambda: not old & {p.pid for p in killed.processes()}, "nothing of the former one is alive", 12.0)
        executor.close()


def test_a_controller_that_was_away_for_longer_than_its_lease_runs_again_what_was_stopped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = site.open(1, lease_s=5.0)
    future = executor.submit_task(stubborn("a"))
    until(lambda: begun(site, "a"), "it has begun")
    with monkeypatch.context() as away:
        away.setattr(executor._dispatch.pools[0].backend._control, "_write", lambda: None)
        until(lambda: not alive(begun(site, "a")[0]), "its lease is over")
    assert future.result(PATIENCE_S) == {}
    assert len(begun(site, "a")) == 2


# Campaigns.

SITE = """
from parsl.config import Config
from parsl_workers import executor
config = Config(executors=[executor(2)])
"""
CAMPAIGN = """
schema: 1
seed: 0
campaign: {{name: tiny, options: {{parts: 4, wait: true}}}}
machine: {{nodes: 2, cores: 1}}
executor: {{name: site, options: {{config: {config}, lease_s: 5}}}}
"""
ENTRY_POINTS = """
[rlctl.campaigns]
tiny = tiny_campaign:Factory
[rlctl.policies]
cycling = tiny_campaign:Cycling
[rlctl.executors]
site = rlctl.executors.parsl.factory:Parsl
"""


def test_a_campaign_is_steered_on_it_and_gone_on_with_after_a_kill(site: Site) -> None:
    folder = site.folder
    info = folder / "tiny-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "site.py").write_text(SITE)
    (folder / "tiny.yaml").write_text(CAMPAIGN.format(config=folder / "site.py"))
    path = os.pathsep.join([str(folder), str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    arguments = ["steer", str(folder / "tiny.yaml"), "--policy", "cycling", "--run", str(folder / "run"), "--json"]
    command = [sys.executable, "-m", "rlctl", *arguments]

    def start(*more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, *more],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    work = folder / "run" / "work"
    with start() as first:
        until(lambda: (work / "begun").exists() and len((work / "begun").read_text().split()) == 4, "two have begun")
        first.kill()
    (work / "go").touch()
    with start("--resume") as second:
        out, err = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 0, err
    assert json.loads(out)["successes"] >= 4
    with Journal.open(folder / "run" / "journal.db", read_only=True) as journal:
        done = [r.data["uid"] for r in journal.records() if r.kind == "event" and r.data["state"] == "done"]
    assert len(done) == len(set(done)) >= 4


# Configurations.


def test_a_configuration_names_an_executor_of_parsl(tmp_path: Path) -> None:
    from parsl.executors import HighThroughputExecutor

    from rlctl.executors.parsl.factory import Parsl, load_executor

    path = tmp_path / "site.py"
    path.write_text(
        "from parsl.config import Config\n"
        "from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor, MPIExecutor\n"
        "one = HighThroughputExecutor(label='one', max_workers_per_node=2)\n"
        "config = Config(executors=[one, ThreadPoolExecutor(label='threads')])\n"
        "def made(): return one\n"
    )
    assert isinstance(load_executor(str(path), "one"), HighThroughputExecutor)
    assert load_executor(f"{path}:one", None).label == load_executor(f"{path}:made", None).label == "one"
    for text, label, complaint in (
        (str(path), None, "several executors, choose one by executor.options.label; there are: one, threads"),
        (str(path), "two", "no executor 'two'; there are: one, threads"),
        (str(path), "threads", "ThreadPoolExecutor is no HighThroughputExecutor"),
        (f"{path}:other", None, "has no 'other'"),
        (f"{tmp_path}/missing.py", None, "FileNotFoundError"),
        ("no.such.module:name", None, "ModuleNotFoundError"),
    ):
        with pytest.raises(ConfigError, match=r"executor\.options") as refused:
            load_executor(text, label)
        assert complaint in str(refused.value)
    factory = Parsl({"config": f"{path}:one"})
    factory.check(Capacity(nodes=2))
    with pytest.raises(LaunchError, match=r"machine\.nodes: 3 workers are asked for"):
        factory.check(Capacity(nodes=3))
    with pytest.raises(ConfigError, match=r"executor\.options\.config"):
        Parsl({})
    said = {"config": "site.py:one", "applications": {"a": {"venv": "v"}}}
    absolute = {"config": f"{path}:one", "applications": {"a": {"venv": str(tmp_path / "v")}}}
    assert Parsl.portable(said, tmp_path.joinpath) == absolute
    assert Parsl.portable({"config": "site.py"}, tmp_path.joinpath) == {"config": str(path)}
    assert Parsl.portable({"config": "package.python:one"}, tmp_path.joinpath) == {"config": "package.python:one"}


def test_the_configuration_in_the_documentation_is_one(tmp_path: Path) -> None:
    from rlctl.executors.parsl.factory import Parsl

    page = Path(__file__).parents[2] / "docs" / "parsl.md"
    program, machine = re.findall(r"```(?:python|yaml)\n(.*?)```", page.read_text(), re.DOTALL)[:2]
    (tmp_path / "site.py").write_text(program)
    told = yaml.safe_load(machine.replace("/home/me", str(tmp_path)))
    assert told["executor"]["name"] == "parsl"
    Parsl(told["executor"]["options"]).check(Capacity(**told["machine"]))


def test_it_works_with_what_parsl_does_unless_told_otherwise_and_without_its_programs_on_the_path(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encryption, an address of its own choice; and an interpreter whose environment is not activated."""
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    htex = HighThroughputExecutor(
        max_workers_per_node=1,
        heartbeat_period=1,
        heartbeat_threshold=5,
        available_accelerators=["7"],
        provider=LocalProvider(max_blocks=1),
    )
    executor = site.open(1, Capacity(nodes=1, cores=1, gpus=1), executor=htex)
    spec = shell("a", """echo "{\\"device\\": $CUDA_VISIBLE_DEVICES}" > a.json""", result_file="a.json")
    spec = dataclasses.replace(spec, resources=Resources(gpus_per_rank=1))
    assert executor.submit_task(spec).result(PATIENCE_S) == {"device": 7}


def test_what_is_slow_to_notice_losses_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    from parsl.executors import HighThroughputExecutor

    from rlctl.executors.parsl.factory import warn_if_slow

    warn_if_slow(workers_of_parsl(1))
    assert not caplog.records
    warn_if_slow(HighThroughputExecutor(label="slow"))
    assert "after up to 30 s, a lost node after up to 120 s" in caplog.text
