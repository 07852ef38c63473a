"""Runs one evaluation of a campaign for real, in a temporary folder, to see whether its results can be read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError
from rlctl.core.task import TaskResult, TaskState
from rlctl.executors.engine import Executor
from rlctl.executors.event_log import Journal
from rlctl.plugins.preflight import check_campaign
from rlctl.plugins.registry import executor_factory, executor_options
from rlctl.plugins.sample_evaluation import first_sample
from rlctl.programs.program import evaluation_folder, kept
from rlctl.programs.readers import STREAMS
from rlctl.system.interrupts import requested_by_signals

_LINES = 10
_TAIL_BYTES = 1 << 14
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Probed:
    """What came of an evaluation.

    Attributes:
        results: what the readers found; empty unless all of them did.
        failure: why there are none; None: there are.
        duration_s: how long it ran.
        last_lines: of its standard output and error, by the names of these.
    """

    results: Mapping[str, float]
    failure: str | None
    duration_s: float
    last_lines: Mapping[str, list[str]]

    def to_text(self) -> str:
        """For people."""
        if self.failure is None:
            values = ", ".join(f"{name} {value:.6g}" for name, value in self.results.items())
            return f"probed in {self.duration_s:.1f} s: {values}"
        text = f"the probe failed after {self.duration_s:.1f} s: {self.failure}"
        for stream, lines in self.last_lines.items():
            text += f"\n{stream} ends with:" + "".join(f"\n    | {line[:150]}" for line in lines) if lines else ""
        return text


def probe(config: Config) -> Probed:
    """Run one evaluation on the configured executor; nothing of it stays.

    Raises:
        ConfigError: the campaign shows no evaluation that could be run.
        LaunchError: the machine is smaller than the configuration says.
        KeyboardInterrupt: SIGINT or SIGTERM arrived; it is stopped, and nothing stays.
    """
    with config.source.located():
        factory = check_campaign(config, real=True)
        spec = first_sample(config, factory)
        if spec is None:
            raise ConfigError(f"campaign {factory.name} shows no evaluation to be tried", ("campaign", "name"))
        executors = executor_factory(config.executor.name, executor_options(config))
        # If this process dies, nothing will take the evaluation over.
        executors = executor_factory(config.executor.name, {**executor_options(config), **executors.actor_options})
        capacity = config.machine.capacity()
        executors.check(capacity)
        requests: list[int] = []
        with requested_by_signals(requests.append), _folder(config) as folder:
            work = folder / "work"
            work.mkdir()
            factory.prepare(work, config.seed)
            with closing(Journal.create(folder / "journal.db", {})) as journal:
                executor = Executor.open(executors, capacity, work, journal, 0.0)
                try:
                    executor.submit_task(kept(spec))
                    while (result := _result(executor)) is None:
                        if requests:
                            raise KeyboardInterrupt
                        executor.wait(_LOOK_S)
                finally:
                    executor.close()
            return _probed(result, evaluation_folder(spec, work))


def _result(executor: Executor) -> TaskResult | None:
    return next((event.result for event in executor.events() if event.result is not None), None)


def _probed(result: TaskResult, folder: Path) -> Probed:
    failure = None
    if result.state is not TaskState.DONE:
        failure = result.message or str(result.failure or result.state)
    elif "outputs" not in result.values:
        failure = "{kind}, which means {then}: {message}".format(**result.values)
    duration_s = max(0.0, result.ended_s - result.started_s)
    last_lines = {stream: _last_lines(folder / file) for stream, file in STREAMS.items()}
    return Probed(result.values.get("outputs", {}), failure, duration_s, last_lines)


def _last_lines(file: Path) -> list[str]:
    try:
        with open(file, "rb") as stream:
            stream.seek(max(0, file.stat().st_size - _TAIL_BYTES))
            return stream.read().decode(errors="replace").splitlines()[-_LINES:]
    except OSError:
        return []


@contextmanager
def _folder(config: Config) -> Iterator[Path]:
    """A folder that is removed in the end; other machines see one beside the configuration, if any."""
    place = None if config.executor.name == "local" else config.resolve("").absolute()
    folder = Path(tempfile.mkdtemp(prefix="rlctl-probe-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
