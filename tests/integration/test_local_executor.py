"""The local executor with real processes: programs, MPI, warm workers, and controllers that die."""

from __future__ import annotations

import concurrent.futures as cf
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from rlctl.core.errors import JournalError, LaunchError
from rlctl.core.machine import Capacity
from rlctl.core.task import Event, Failure, Resources, TaskId, TaskResult, TaskSpec, TaskState
from rlctl.executors.event_log import Journal
from rlctl.executors.functions.large_results import fetch
from rlctl.executors.local.backend import LocalBackend, LocalExecutor
from rlctl.executors.local.pid_file import TASK
from rlctl.executors.local.processes import GRACE_S, family, start_time
from rlctl.executors.local.supervisor_client import SupervisorClient
from rlctl.executors.naming import scratch_folder
from rlctl.executors.recovery import KINDS, History
from rlctl.system.cores import available_cores
from rlctl.system.mpi import find_mpiexec

two_cores = pytest.mark.skipif(len(available_cores()) < 2, reason="needs two cores")
needs_mpi = pytest.mark.skipif(find_mpiexec() is None, reason="needs mpiexec")
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

REPORT = "import json, os, sys; from pathlib import Path; out = Path(sys.argv[1])\n"
STUBBORN = (
    "import os, signal, subprocess, sys, time; from pathlib import Path\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "code = 'import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(300)'\n"
    "apart = 'apart' in sys.argv\n"
    "command = [sys.executable, '-c', code]\n"
    "child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=apart)\n"
    "child.stdout.readline()\n"
    "Path('pids.new').write_text(f'{os.getpid()} {child.pid}'); os.rename('pids.new', 'pids'); time.sleep(300)\n"
)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., LocalExecutor]]:
    made: list[LocalExecutor] = []

    def executor(cores: int = 1, gpus: int = 0, **options: Any) -> LocalExecutor:
        made.append(LocalExecutor(Capacity(cores=cores, gpus=gpus), **{"workdir": tmp_path / "work", **options}))
        return made[-1]

    yield executor
    for one in made:
        one.close()
        assert not client_of(one).scratch.exists()


def client_of(executor: LocalExecutor) -> SupervisorClient:
    backend = executor._dispatch.pools[0].backend
    assert isinstance(backend, LocalBackend)
    return backend.programs.client


def script(uid: str, code: str, *arguments: str, **options: Any) -> TaskSpec:
    return TaskSpec(TaskId(uid), executable="python", arguments=("-c", code, *arguments), **options)


def finish(executor: LocalExecutor, timeout_s: float = 60.0) -> list[Event]:
    """All events until nothing is queued or running."""
    events: list[Event] = []
    end = time.monotonic() + timeout_s
    while new := executor.wait(max(0.0, end - time.monotonic())):
        events += new
    assert time.monotonic() < end, f"still running after {timeout_s} s; events so far: {events}"
    return events


def run(executor: LocalExecutor, *specs: TaskSpec) -> dict[str, TaskResult]:
    for spec in specs:
        executor.submit_task(spec)
    return {event.uid: event.result for event in finish(executor) if event.result is not None}


def until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s: {what}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def pids(path: Path) -> list[int]:
    return [int(word) for word in until(lambda: path.exists(), 30.0, f"{path} is written") and path.read_text().split()]


def test_program_ends_well_and_its_result_is_read(make: Callable[..., LocalExecutor], tmp_path: Path) -> None:
    code = REPORT + "out.write_text(json.dumps({'cwd': os.getcwd(), 'x': os.environ['X']})); print('hello')"
    executor = make()
    spec = script("a", code, "a.json", result_file="a.json", environment={"X": "7"})
    executor.submit_task(spec)
    executor.submit_task(spec)  # a known uid is ignored
    events = finish(executor)
    assert [event.state for event in events] == [TaskState.RUNNING, TaskState.DONE]
    result = events[-1].result
    assert result is not None
    assert result.values == {"cwd": str(tmp_path / "work"), "x": "7"}
    assert result.cores == 1
    assert 0.0 <= result.started_s < result.ended_s <= executor.now()
    assert (tmp_path / "work" / "logs" / "a.1.out").read_text() == "hello\n"


@pytest.mark.parametrize(
    ("code", "failure", "message"),
    [
        ("import sys; sys.exit('no such restart file')", Failure.EXIT, "no such restart file"),
        ("import sys; sys.exit(3)", Failure.DIVERGED, "exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", Failure.SIGNAL, "killed by SIGKILL"),
        ("pass", Failure.GARBAGE, "r.json"),
        ("open('r.json', 'w').write('{\"q\": 0.')", Failure.GARBAGE, "r.json"),
        ("open('r.json', 'w').write('[1]')", Failure.GARBAGE, "not a mapping"),
        ("open('r.json', 'w').write('{\"q\": NaN}')", Failure.GARBAGE, "NaN"),
        ("open('r.json', 'wb').write(bytes(range(256)))", Failure.GARBAGE, "r.json"),
        ("import time; time.sleep(300)", Failure.TIMEOUT, "walltime"),
    ],
)
def test_bad_end_is_a_typed_failure(
    make: Callable[..., LocalExecutor], code: str, failure: Failure, message: str
) -> None:
    executor = make()
    codes = ((3, Failure.DIVERGED),)
    walltime_s = 0.3 if failure is Failure.TIMEOUT else None
    result = run(executor, script("a", code, result_file="r.json", failure_codes=codes, walltime_s=walltime_s))["a"]
    assert (result.state, result.failure) == (TaskState.FAILED, failure)
    assert message in result.message


def test_program_that_does_not_exist_is_a_launch_failure_and_the_next_runs(make: Callable[..., LocalExecutor]) -> None:
    results = run(make(), TaskSpec(TaskId("a"), executable="no-such-program"), script("b", "pass"))
    assert results["a"].failure is Failure.LAUNCH
    assert "no-such-program" in results["a"].message
    assert results["b"].state is TaskState.DONE


def test_failed_attempts_are_repeated_and_an_old_result_is_not_taken_for_a_new_one(
    make: Callable[..., LocalExecutor],
) -> None:
    code = REPORT + (
        "n = len(list(Path('logs').glob('a.*.out')))\n"
        "if n < 3: out.write_text(json.dumps({'n': n})); sys.exit(1)\n"
        "assert not out.exists(); out.write_text(json.dumps({'n': n}))"
    )
    executor = make()
    executor.submit_task(script("a", code, "r.json", result_file="r.json", retries=2))
    events = finish(executor)
    run_, queued = TaskState.RUNNING, TaskState.QUEUED
    states = [(event.state, event.attempt) for event in events]
    assert states == [(run_, 1), (queued, 2), (run_, 2), (queued, 3), (run_, 3), (TaskState.DONE, 3)]
    assert events[-1].result is not None
    assert events[-1].result.values == {"n": 3}


def test_larger_priority_starts_first_and_equal_ones_in_order(make: Callable[..., LocalExecutor]) -> None:
    executor = make()
    for uid, priority in (("a", 0.0), ("b", 0.0), ("c", 1.0)):
        executor.submit_task(script(uid, "pass", priority=priority))
    order = [event.uid for event in finish(executor) if event.state is TaskState.RUNNING]
    assert order == ["c", "a", "b"]


def test_nothing_starts_before_wait(make: Callable[..., LocalExecutor], tmp_path: Path) -> None:
    executor = make()
    executor.submit_task(script("a", "pass"))
    assert not (tmp_path / "work" / "logs").exists()
    executor.cancel(TaskId("a"))
    assert [event.state for event in finish(executor)] == [TaskState.CANCELED]
    assert not (tmp_path / "work" / "logs").exists()


@needs_mpi
@pytest.mark.parametrize(("how", "takes_s"), [("cancel", 2.0), ("close", 1.0)])
def test_ranks_have_the_whole_grace_to_save_their_state(
    make: Callable[..., LocalExecutor], tmp_path: Path, how: str, takes_s: float
) -> None:
    # Open MPI's launcher, asked to end, kills its ranks after half a second.
    code = (
        "import signal, sys, time; from pathlib import Path; from mpi4py import MPI; comm = MPI.COMM_WORLD\n"
        f"def save(*_): time.sleep({takes_s}); Path('saved' + str(comm.rank)).touch(); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save); Path(f'up{comm.rank}').touch(); time.sleep(60)"
    )
    executor, work = make(cores=2), tmp_path / "work"
    executor.submit_task(script("a", code, resources=Resources(ranks=2)))
    while not all((work / f"up{rank}").exists() for rank in range(2)):
        executor.wait(0.05)
    if how == "cancel":
        executor.cancel(TaskId("a"), grace_s=30.0)
        assert finish(executor)[-1].state is TaskState.CANCELED
    else:
        executor.close()
    assert all((work / f"saved{rank}").exists() for rank in range(2))


@two_cores
@on_linux
def test_tasks_at_one_time_have_cores_of_their_own(make: Callable[..., LocalExecutor]) -> None:
    code = REPORT + (
        "import time; out.write_text(json.dumps({'cores': sorted(os.sched_getaffinity(0))}))\n"
        "while not (Path('0.json').exists() and Path('1.json').exists()): time.sleep(0.01)"  # both at one time
    )
    before = os.sched_getaffinity(0)
    specs = [script(str(i), code, f"{i}.json", result_file=f"{i}.json", walltime_s=30.0) for i in range(2)]
    results = run(make(cores=2), *specs)
    cores = [results[str(i)].values["cores"] for i in range(2)]
    assert [len(one) for one in cores] == [1, 1]
    assert cores[0] != cores[1]
    assert os.sched_getaffinity(0) == before


@two_cores
@needs_mpi
def test_ranks_wait_for_free_cores_hold_back_those_behind_and_find_each_other(
    make: Callable[..., LocalExecutor],
) -> None:
    code = REPORT + (
        "from mpi4py import MPI; comm = MPI.COMM_WORLD\n"
        "cores = comm.gather(sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else [0, 1])\n"
        "if comm.rank == 0: out.write_text(json.dumps({'size': comm.size, 'cores': cores}))"
    )
    executor = make(cores=2)
    executor.submit_task(script("first", "import time; time.sleep(0.3)"))
    executor.submit_task(script("wide", code, "m.json", result_file="m.json", resources=Resources(ranks=2)))
    executor.submit_task(script("behind", "pass"))
    events = finish(executor)
    order = [(event.uid, event.state) for event in events]
    run_, done = TaskState.RUNNING, TaskState.DONE
    assert order.index(("first", done)) < order.index(("wide", run_))
    assert order.index(("wide", done)) < order.index(("behind", run_))
    wide = next(event.result for event in events if event.uid == "wide" and event.result)
    assert wide.values["size"] == 2
    assert all(len(cores) == 2 for cores in wide.values["cores"])
    assert wide.cores == 2


@two_cores
@needs_mpi
def test_two_mpi_programs_run_at_one_time(make: Callable[..., LocalExecutor], tmp_path: Path) -> None:
    code = REPORT + (
        "import time; from mpi4py import MPI; comm = MPI.COMM_WORLD\n"
        "if comm.rank == 0: out.write_text(json.dumps({'size': comm.size}))\n"
        "while not all((out.parent / name).exists() for name in ('0.json', '1.json')): time.sleep(0.01)"
    )
    executors = [make(cores=2, workdir=tmp_path / f"work{i}") for i in range(2)]
    for i, executor in enumerate(executors):
        path = str(tmp_path / f"{i}.json")
        executor.submit_task(script("a", code, path, result_file=path, resources=Resources(ranks=2), walltime_s=60.0))
        assert executor.wait()[0].state is TaskState.RUNNING
    for executor in executors:
        result = finish(executor)[-1].result
        assert result is not None
        assert result.values == {"size": 2}, result


@two_cores
@needs_mpi
@pytest.mark.parametrize(
    ("code", "failure", "message"),
    [
        ("import sys; sys.exit(3)", Failure.DIVERGED, ""),
        ("import os; os.kill(os.getpid(), 9)", Failure.SIGNAL, "SIGKILL"),
        ("import time; time.sleep(300)", Failure.TIMEOUT, "walltime"),
    ],
)
def test_bad_end_of_a_rank_is_a_typed_failure(
    make: Callable[..., LocalExecutor], code: str, failure: Failure, message: str
) -> None:
    spec = script(
        "a",
        "from mpi4py import MPI\n" + code,
        resources=Resources(ranks=2),
        failure_codes=((3, Failure.DIVERGED),),
        walltime_s=3.0 if failure is Failure.TIMEOUT else 60.0,
    )
    result = run(make(cores=2), spec)["a"]
    assert result.failure is failure, result
    assert message in result.message


def test_gpus_are_shown_to_their_task_only(make: Callable[..., LocalExecutor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    code = REPORT + "out.write_text(json.dumps({'gpus': os.environ['CUDA_VISIBLE_DEVICES']}))"
    shares = {"none": 0.0, "half": 0.5, "two": 2.0}
    specs = [
        script(uid, code, f"{uid}.json", result_file=f"{uid}.json", resources=Resources(gpus_per_rank=share))
        for uid, share in shares.items()
    ]
    results = run(make(gpus=2), *specs)
    assert {uid: result.values["gpus"] for uid, result in results.items()} == {"none": "", "half": "4", "two": "4,6"}


def test_what_can_never_run_is_refused(make: Callable[..., LocalExecutor], tmp_path: Path) -> None:
    executor = make()
    with pytest.raises(LaunchError, match="needs 2 cores"):
        executor.submit_task(script("a", "pass", resources=Resources(ranks=2)))
    with pytest.raises(LaunchError, match="this process may use"):
        LocalExecutor(Capacity(cores=10_000), tmp_path / "other")


@on_linux
@pytest.mark.parametrize("how", ["cancel", "walltime", "shutdown"])
def test_stubborn_program_and_its_child_are_dead_when_it_is_said_so(
    make: Callable[..., LocalExecutor], tmp_path: Path, how: str
) -> None:
    executor = make()
    executor.submit_task(script("a", STUBBORN, walltime_s=2.0 if how == "walltime" else None))
    assert executor.wait()[0].state is TaskState.RUNNING
    processes = pids(tmp_path / "work" / "pids")
    assert all(map(alive, processes))
    if how == "cancel":
        executor.cancel(TaskId("a"), grace_s=0.2)
        assert alive(processes[0])
    if how == "shutdown":
        executor.close()
    else:
        (event,) = finish(executor)
        assert event.state is (TaskState.CANCELED if how == "cancel" else TaskState.FAILED)
        assert event.result is not None
        assert event.result.failure is (None if how == "cancel" else Failure.TIMEOUT)
    assert not any(map(alive, processes))


@on_linux
def test_what_a_finished_program_leaves_behind_is_stopped_before_its_cores_are_free(
    make: Callable[..., LocalExecutor], tmp_path: Path
) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '300']).pid)"
    assert run(make(), script("a", code))["a"].state is TaskState.DONE
    assert not alive(int((tmp_path / "work" / "logs" / "a.1.out").read_text()))


def test_waiting_honours_its_timeout_and_looks_seldom(
    make: Callable[..., LocalExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = make()
    assert executor.wait() == []  # nothing to wait for
    executor.submit_task(script("a", "import time; time.sleep(300)"))
    executor.wait()
    rests: list[float | None] = []
    looks: list[float | None] = []
    backend, sleep = executor._dispatch.pools[0].backend, executor._dispatch.lock.news.wait
    poll = backend.poll
    monkeypatch.setattr(executor._dispatch.lock.news, "wait", lambda left_s: rests.append(left_s) or sleep(left_s))
    monkeypatch.setattr(backend, "poll", lambda given_s: looks.append(given_s) or poll(given_s))
    began_s = time.monotonic()
    assert executor.wait(0.5) == []
    assert time.monotonic() - began_s > 0.4
    assert 0 < len(rests) < 20
    assert len(looks) < 20


def test_interrupt_inside_wait_leaves_nothing_after_shutdown(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from rlctl.core.machine import Capacity; from rlctl.executors.local.backend import LocalExecutor\n"
        "from rlctl.core.task import TaskSpec\n"
        "executor = LocalExecutor(Capacity(cores=1), Path(sys.argv[1]))\n"
        "executor.submit_task(TaskSpec('a', executable='python', arguments=('-c', sys.argv[2])))\n"
        "try:\n    while True: executor.wait()\n"
        "except KeyboardInterrupt:\n    executor.close(); executor.close(); print('clean')\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), STUBBORN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as controller:
        processes = pids(tmp_path / "pids")
        controller.send_signal(signal.SIGINT)
        assert controller.communicate(timeout=30.0)[0] == "clean\n"
    assert not any(map(alive, processes))


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "called_functions.py").write_text(
        "import os, time\n"
        "def double(x): return {'twice': 2 * x, 'pid': os.getpid()}\n"
        "def crash(): os._exit(7)\n"
        "def killed(): os.kill(os.getpid(), 9)\n"
        "def error(): raise ValueError('bad input')\n"
        "def number(): return 3\n"
        "def field(n):\n"
        "    import numpy as np\n"
        "    field = np.full((n, n), 0.5)\n"
        "    return {'field': field, 'mean': field.mean(), 'words': ['word'] * 20_000}\n"
        "def nan(): return {'x': float('nan')}\n"
        "def hang(path=None):\n"
        "    if path: open(path + '.new', 'w').write(str(os.getpid())); os.rename(path + '.new', path)\n"
        "    time.sleep(300)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    return "called_functions"


def call(uid: str, function: str, parameters: Mapping[str, Any] | None = None, **options: Any) -> TaskSpec:
    return TaskSpec(TaskId(uid), function=function, parameters=parameters or {}, **options)


def test_calls_run_in_a_warm_worker(make: Callable[..., LocalExecutor], functions: str) -> None:
    executor = make()
    results = run(executor, *[call(str(i), f"{functions}:double", {"x": i}) for i in range(5)])
    assert [results[str(i)].values["twice"] for i in range(5)] == [0, 2, 4, 6, 8]
    (pid,) = {result.values["pid"] for result in results.values()}  # one and the same process
    assert pid != os.getpid()
    executor.close()
    assert not alive(pid)


def test_bad_call_is_a_typed_failure_and_the_next_call_works(
    make: Callable[..., LocalExecutor], functions: str
) -> None:
    executor = make()
    expected = {
        f"{functions}:crash": (Failure.EXIT, "code 7"),
        f"{functions}:killed": (Failure.SIGNAL, "SIGKILL"),
        f"{functions}:error": (Failure.EXIT, "ValueError: bad input"),
        f"{functions}:number": (Failure.GARBAGE, "int, not a mapping"),
        f"{functions}:nan": (Failure.GARBAGE, "not JSON"),
        f"{functions}:missing": (Failure.LAUNCH, "missing"),
        "no_such_module:f": (Failure.LAUNCH, "no_such_module"),
    }
    for function, (failure, message) in expected.items():
        result = run(executor, call(function, function))[function]
        assert result.failure is failure, result
        assert message in result.message
        assert (
            run(executor, call(f"after {function}", f"{functions}:double", {"x": 4})).popitem()[1].values["twice"] == 8
        )


def test_large_results_of_calls_and_programs_stay_in_files(
    make: Callable[..., LocalExecutor], functions: str, tmp_path: Path
) -> None:
    executor, work = make(), tmp_path / "work"
    values = run(executor, call("a", f"{functions}:field", {"n": 1000}))["a"].values
    assert values["mean"] == 0.5
    assert len(json.dumps(dict(values))) < 500
    assert values["field"]["shape"] == [1000, 1000]
    field = fetch(values["field"], work)
    assert field.shape == (1000, 1000)
    assert field[3, 4] == 0.5
    assert fetch(values["words"], work) == ["word"] * 20_000
    code = REPORT + "out.write_text(json.dumps({'short': 1, 'long': list(range(50_000))}))"
    values = run(executor, script("b", code, "b.json", result_file="b.json"))["b"].values
    assert values["short"] == 1
    assert fetch(values["long"], work) == list(range(50_000))


def test_tasks_whose_names_can_be_no_files_have_logs_results_and_ends_of_their_own(
    make: Callable[..., LocalExecutor], functions: str, tmp_path: Path
) -> None:
    executor, work = make(cores=2), tmp_path / "work"
    long = "long" * 100
    names = ["a/b", "a_b", ".a", "../a", "50%", "50%25", long, f"{long}er", "ü" * 200]
    results = run(executor, *[script(name, "import sys; print(sys.argv[1])", name) for name in names])
    assert {result.state for result in results.values()} == {TaskState.DONE}
    logs = [path.read_text().strip() for path in (work / "logs").glob("*.out")]
    assert sorted(logs) == sorted(names)
    assert (work / "logs" / "a_b.1.out").read_text() == "a_b\n", "what can be a file's name is one"
    results = run(executor, *[call(f"call {name}", f"{functions}:field", {"n": 3 + i}) for i, name in enumerate(names)])
    for i, name in enumerate(names):
        assert fetch(results[f"call {name}"].values["field"], work).shape == (3 + i, 3 + i)


def test_a_worker_that_stands_still_does_not_hold_up_the_executor(make: Callable[..., LocalExecutor]) -> None:
    executor = make(eager=True)
    pid = executor.submit(os.getpid).result(60.0)
    os.kill(pid, signal.SIGSTOP)
    with cf.ThreadPoolExecutor(1) as thread:
        try:
            asked = thread.submit(lambda: executor.submit(len, bytes(8_000_000)))
            future = asked.result(10.0)
            assert len(thread.submit(executor.status).result(10.0).running) == 1
        finally:
            os.kill(pid, signal.SIGCONT)
    assert future.result(60.0) == 8_000_000
    values = {"x": "x" * 1_000_000}
    assert executor.submit_task(call("a", "builtins:dict", values)).result(60.0).keys() == values.keys()
    left = {path.name for path in client_of(executor).scratch.iterdir()}
    assert left <= {"socket"}, left  # which the supervisor may not have come to yet


@on_linux
def test_worker_that_was_killed_between_two_calls_is_replaced(
    make: Callable[..., LocalExecutor], functions: str
) -> None:
    executor = make()
    pid = run(executor, call("a", f"{functions}:double", {"x": 1}))["a"].values["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), 5.0, "the worker is dead")
    result = run(executor, call("b", f"{functions}:double", {"x": 2}))["b"]
    assert result.values["twice"] == 4, result


def test_script_without_main_guard_is_not_run_again_by_its_workers(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "from pathlib import Path\n"
        "from rlctl.core.machine import Capacity; from rlctl.executors.local.backend import LocalExecutor\n"
        "from rlctl.core.task import TaskSpec\n"
        "print('main')\n"
        "executor = LocalExecutor(Capacity(cores=1), Path('work'))\n"
        "executor.submit_task(TaskSpec('a', function='builtins:dict', parameters={'x': 1}))\n"
        "executor.wait(); print(executor.wait()[0].result.values); executor.close()\n"
    )
    answer = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60.0, check=True
    )
    assert answer.stdout == "main\n{'x': 1}\n"
    assert "main" not in (tmp_path / "work" / "logs" / "calls.out").read_text()


@pytest.mark.parametrize("how", ["cancel", "walltime"])
def test_hanging_call_is_stopped_and_the_next_call_works(
    make: Callable[..., LocalExecutor], functions: str, tmp_path: Path, how: str
) -> None:
    executor = make()
    walltime_s = 0.5 if how == "walltime" else None
    executor.submit_task(call("a", f"{functions}:hang", {"path": str(tmp_path / "pid")}, walltime_s=walltime_s))
    assert executor.wait()[0].state is TaskState.RUNNING
    if how == "cancel":
        while not (tmp_path / "pid").exists():
            assert executor.wait(0.05) == []
        executor.cancel(TaskId("a"))
    (event,) = finish(executor)
    assert event.result is not None
    assert event.result.failure is (None if how == "cancel" else Failure.TIMEOUT)
    assert not alive(int((tmp_path / "pid").read_text()))
    assert run(executor, call("b", f"{functions}:double", {"x": 1}))["b"].values["twice"] == 2


def test_call_canceled_before_its_worker_is_there_never_runs(
    make: Callable[..., LocalExecutor], functions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Workers wait as they start, until the call is canceled.
    (tmp_path / "slow").mkdir()
    held = f"{TASK!r} in os.environ and not os.path.exists({str(tmp_path / 'go')!r})"
    wait = f"import os, time\nwhile {held}: time.sleep(0.01)\n"
    (tmp_path / "slow" / "sitecustomize.py").write_text(wait)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "slow"), prepend=os.pathsep)
    executor = make()
    executor.submit_task(call("a", f"{functions}:hang", {"path": str(tmp_path / "pid")}))
    executor.wait()
    executor.cancel(TaskId("a"))
    (tmp_path / "go").touch()
    assert [event.state for event in finish(executor)] == [TaskState.CANCELED]
    assert run(executor, call("b", f"{functions}:double", {"x": 1}))["b"].values["twice"] == 2
    assert not (tmp_path / "pid").exists()


def test_what_was_asked_and_started_is_written_ahead(make: Callable[..., LocalExecutor], tmp_path: Path) -> None:
    with Journal.create(tmp_path / "journal.db", {}) as journal:
        executor = make(journal=journal, start_s=100.0)
        executor.submit_task(script("a", "pass"), attempt=3)
        finish(executor)
        executor.close()
        records = journal.records()
    assert [record.kind for record in records] == ["submitted", "launching", "event", "event", "event"]
    assert records[1].data == {"uid": "a", "attempt": 3, "cores": [0], "gpus": {}, "nodes": [0]}
    assert set(records[3].data) == {"uid", "attempt", "time_s", "state", "pid", "starttime", "boot_id", "host"}
    assert [record.data["state"] for record in records[2:]] == ["queued", "running", "done"]
    assert all(record.time_s >= 100.0 for record in records)


ONCE = "import json; open('begun', 'a').write('x'); json.dump({'x': 1}, open('a.json', 'w'))"
WHEN_ALLOWED = f"import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n{ONCE}"


def lives_once(executor: LocalExecutor, work: Path, told_again: bool = True) -> None:
    """A later controller learns how the task ended, by the supervisor or the journal, and does not run it again."""
    events = finish(executor)
    began = [(TaskState.RUNNING, 1)] if told_again else []
    assert [(event.state, event.attempt) for event in events] == [*began, (TaskState.DONE, 1)]
    assert events[-1].result is not None
    assert events[-1].result.values == {"x": 1}
    assert (work / "begun").read_text() == "x"
    executor.close()
    assert not (work / "exits").exists()


@on_linux
@pytest.mark.parametrize("recorded", [False, True])
def test_an_end_that_a_killed_controller_was_told_is_found_again(
    make: Callable[..., LocalExecutor], tmp_path: Path, recorded: bool
) -> None:
    spec = script("a", WHEN_ALLOWED, result_file="a.json")
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from rlctl.core.machine import Capacity; from rlctl.executors.event_log import Journal\n"
        "from rlctl.executors.local.backend import LocalExecutor; from rlctl.core.task import TaskSpec\n"
        "folder = Path(sys.argv[1]); journal = Journal.create(folder / 'journal.db', {})\n"
        "executor = LocalExecutor(Capacity(cores=1), folder / 'work', journal)\n"
        "spec = TaskSpec('a', executable='python', arguments=('-c', sys.argv[2]), result_file='a.json')\n"
        "executor.submit_task(spec)\n"
        "die = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
        "assert executor.wait()[-1].state == 'running'\n"
        "(folder / 'work' / 'go').touch()\n"
        "if sys.argv[3] == 'False': journal.batch = die\n"
        "executor.wait()\n"
        "die()"
    )
    arguments = [str(tmp_path), WHEN_ALLOWED, str(recorded)]
    killed = subprocess.run([sys.executable, "-c", code, *arguments], timeout=60.0)
    assert killed.returncode == -signal.SIGKILL
    with Journal.open(tmp_path / "journal.db") as journal:
        executor = make(journal=journal, history=History.read(journal.records(kinds=KINDS)))
        executor.submit_task(spec)
        lives_once(executor, tmp_path / "work", told_again=not recorded)


@on_linux
def test_an_end_that_could_not_be_recorded_is_found_again(
    make: Callable[..., LocalExecutor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = script("a", ONCE, result_file="a.json")
    with Journal.create(tmp_path / "journal.db", {}) as journal:
        executor = make(eager=True)
        executor.attach(journal)
        write = journal.write

        def fails(kind: str, time_s: float, data: Mapping[str, Any], done: Any = None) -> None:
            if "result" in data:
                done(JournalError("no space left"))
            else:
                write(kind, time_s, data, done)

        monkeypatch.setattr(journal, "write", fails)
        with pytest.raises(JournalError, match="no space left"):
            executor.submit_task(spec).result(60.0)
        executor.close()
    with Journal.open(tmp_path / "journal.db") as journal:
        executor = make(eager=True)
        executor.attach(journal)
        executor.submit_task(spec)
        lives_once(executor, tmp_path / "work")


CONTROLLER = """
import os, signal, sys
from pathlib import Path
from rlctl.core.machine import Capacity
from rlctl.executors.local.backend import LocalExecutor
from rlctl.core.task import Resources, TaskSpec
sys.path.append(sys.argv[2])
executor = LocalExecutor(Capacity(cores=int(sys.argv[3])), Path(sys.argv[1]))
for i, spec in enumerate(eval(sys.argv[4])):
    executor.submit_task(spec)
while True:
    executor.wait()
"""


@on_linux
@pytest.mark.parametrize("kind", ["stubborn program", "child apart", "call", "ranks"])
def test_when_the_controller_is_killed_its_tasks_are_dead_after_the_lease(
    tmp_path: Path, functions: str, kind: str
) -> None:
    cores = 1
    marker = tmp_path / "pids"
    if kind == "call":
        spec = f"TaskSpec('a', function='{functions}:hang', parameters={{'path': {str(marker)!r}}})"
    elif kind == "ranks":
        if find_mpiexec() is None or len(available_cores()) < 2:
            pytest.skip("needs mpiexec and two cores")
        cores = 2
        code = (
            "import os, time; from pathlib import Path; from mpi4py import MPI; comm = MPI.COMM_WORLD\n"
            "found = comm.gather(os.getpid())\n"
            "if comm.rank == 0:\n"
            "    Path('new').write_text(' '.join(map(str, [os.getppid(), *found]))); os.rename('new', 'pids')\n"
            "comm.Barrier(); time.sleep(300)"
        )
        spec = f"TaskSpec('a', executable='python', arguments=('-c', {code!r}), resources=Resources(ranks=2))"
    else:
        spec = f"TaskSpec('a', executable='python', arguments=('-c', {STUBBORN!r}, {kind.split()[-1]!r}))"
    command = [sys.executable, "-c", CONTROLLER, str(tmp_path), str(tmp_path / "modules"), str(cores), f"[{spec}]"]
    with subprocess.Popen(command) as controller:
        processes = pids(marker)
        assert all(map(alive, processes))
        note = until(lambda: (tmp_path / ".lease").read_text(), 30.0, "the supervisor has written its note")
        scratch = scratch_folder(note.split()[0])
        until(scratch.exists, 30.0, "the supervisor has come to its scratch folder")
        controller.kill()
    until(lambda: not any(map(alive, processes)), GRACE_S + 2.0, f"{processes} are dead")
    # The successor waits for the supervisor, then has the folder to itself.
    LocalExecutor(Capacity(cores=1), tmp_path).close()
    assert not scratch.exists()


def kill_supervisor(executor: LocalExecutor) -> int:
    process = client_of(executor)._process
    assert process is not None
    process.kill()
    return process.pid


@on_linux
def test_killed_supervisor_is_replaced_and_what_runs_goes_on(
    make: Callable[..., LocalExecutor], tmp_path: Path
) -> None:
    executor = make()
    code = REPORT + "import time; time.sleep(0.6); out.write_text(json.dumps({'pid': os.getpid()}))"
    executor.submit_task(script("a", code, "a.json", result_file="a.json"))
    executor.submit_task(script("b", "pass"))
    assert executor.wait()[0].state is TaskState.RUNNING
    first = kill_supervisor(executor)
    events = finish(executor)
    assert [(e.uid, e.state, e.attempt) for e in events] == [
        ("a", TaskState.DONE, 1),
        ("b", TaskState.RUNNING, 1),
        ("b", TaskState.DONE, 1),
    ]
    assert client_of(executor)._process is not None
    assert client_of(executor)._process.pid != first


@on_linux
def test_what_runs_under_a_second_supervisor_can_be_stopped(make: Callable[..., LocalExecutor]) -> None:
    executor = make()
    executor.submit_task(script("a", "import time; time.sleep(300)"))
    executor.wait()
    kill_supervisor(executor)
    executor.cancel(TaskId("a"))
    assert finish(executor)[-1].state is TaskState.CANCELED


@on_linux
def test_what_a_killed_supervisor_could_not_stop_the_next_controller_stops(tmp_path: Path) -> None:
    """As when a batch system kills all of a job but what has left its session."""
    marker = tmp_path / "pids"
    spec = f"TaskSpec('a', executable='python', arguments=('-c', {STUBBORN!r}, 'apart'))"
    command = [sys.executable, "-c", CONTROLLER, str(tmp_path), str(tmp_path / "modules"), "1", f"[{spec}]"]
    with subprocess.Popen(command) as controller:
        processes = pids(marker)
        supervisors = [
            child for child in psutil.Process(controller.pid).children() if "supervisor" in " ".join(child.cmdline())
        ]
        for process in [*supervisors, controller]:
            process.kill()
    assert len(supervisors) == 1
    assert all(map(alive, processes))
    LocalExecutor(Capacity(cores=1), tmp_path).close()
    assert not any(map(alive, processes))


@pytest.mark.parametrize("note", ["", "../../x host boot\n+1 1\n", f"{'0' * 32} another machine\n+1 1\n"])
def test_a_strange_note_in_the_lock_file_stops_nobody(
    make: Callable[..., LocalExecutor], tmp_path: Path, note: str
) -> None:
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as stranger:
        held = f"+{stranger.pid} {start_time(stranger.pid)}\n" if note else ""
        (tmp_path / "work").mkdir()
        (tmp_path / "work" / ".lease").write_text(note + held)
        assert run(make(), script("a", "pass"))["a"].state is TaskState.DONE
        assert stranger.poll() is None
        stranger.kill()


@on_linux
def test_session_and_start_time_name_the_living_only() -> None:
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as process:
        assert family([process.pid]) == [process.pid]
        assert start_time(process.pid) > start_time(os.getpid())
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert family([process.pid]) == []  # a zombie
    assert start_time(process.pid) == 0


def test_without_a_capacity_it_has_the_cores_of_the_cpu_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlctl.system.cores.affinity", lambda: [0, 2, 4, 6])
    monkeypatch.setattr("rlctl.executors.local.site.affinity", lambda: [0, 2, 4, 6])
    monkeypatch.setattr("rlctl.system.cores.quota", lambda: 2.5)
    for name in ("SLURM_JOB_ID", "SLURM_CPUS_ON_NODE", "PYTHON_CPU_COUNT"):
        monkeypatch.delenv(name, raising=False)
    with LocalExecutor() as executor:
        assert executor.capacity.cores == 2
