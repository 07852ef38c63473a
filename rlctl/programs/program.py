"""``Program``: makes the tasks of a user's program, and checks what can be checked before one runs."""

from __future__ import annotations

import glob
import itertools
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlctl.config.validation import did_you_mean
from rlctl.core.errors import ConfigError, Key, one_line
from rlctl.core.task import Failure, Resources, TaskId, TaskSpec
from rlctl.programs.options import ProgramOptions
from rlctl.programs.placeholders import BRACES, Delimiters, names, render, words
from rlctl.programs.reader_options import ArrayReader, FunctionReader
from rlctl.programs.readers import STREAMS
from rlctl.programs.run_evaluation import EXIT_CODES

_INTERPRETERS = ("python", "python3", "bash", "sh", "perl", "julia", "Rscript")

BUILT_IN = frozenset({"ranks", "cores", "gpus", "seed", "task", "here", "restart_in", "restart_out", "stage"})
"""Placeholders of every program; see ``ProgramOptions``."""

RESTARTS = "restarts"
"""Folder of restart files, beside those of evaluations."""

_WRAPPER = ("python", "-P", "-m", "rlctl.programs.run_evaluation")

_TEMPLATE_BYTES = 1 << 24

_FAILURES = {
    "exit": Failure.EXIT,
    "read": Failure.GARBAGE,
    "output": Failure.OUTPUT,
    "signal": Failure.SIGNAL,
    "launch": Failure.LAUNCH,
    "lost": Failure.LOST,
}


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """One evaluation of a program.

    Attributes:
        number: 0, 1, 2 ... within the run; names its folder.
        values: of the placeholders, parameters and values of the stage.
        resources: what it occupies.
        seed: for the placeholder of this name.
        stage: likewise.
        restart_from: number of the evaluation whose restart file it begins with; None: with none.
        walltime_s: seconds after which it is stopped; None: as the program says.
        parameters: that the task carries, for task models and people; None: the values.
        priority: of the task.
    """

    number: int
    values: Mapping[str, Any]
    resources: Resources
    seed: int = 0
    stage: str = ""
    restart_from: int | None = None
    walltime_s: float | None = None
    parameters: Mapping[str, Any] | None = None
    priority: float = 0.0


class Program:
    """A user's program.

    Attributes:
        name, options, key: as given.

    Args:
        name: names its description in the run folder.
        options: as the configuration has them.
        here: folder of the configuration, from which relative paths begin.
        known: names of placeholders besides ``BUILT_IN``.
        key: of the options in the configuration, for messages.

    Raises:
        ConfigError: a placeholder is not defined, or a file is missing.
    """

    def __init__(
        self, name: str, options: ProgramOptions, here: Path, known: Collection[str] = (), key: Key = ("program",)
    ) -> None:
        self.name, self.options = name, options
        self._here, self.key = here.absolute(), key
        self._file = f"{name}.json"
        self._templates = {target: self._read_template(source) for source, target in options.templates.items()}
        self._copy, self._link = self._files("copy", options.copy_), self._files("link", options.link)
        self._check_names()
        self._check_placeholders({*known, *BUILT_IN})
        self._check_scripts()

    @property
    def resources(self) -> list[Resources]:
        """What an evaluation may occupy, in the order in which the configuration lists it."""
        choices = self.options.resources
        return [
            Resources(ranks, cores, gpus, choices.memory_mb, choices.nodes)
            for ranks, cores, gpus in itertools.product(choices.ranks, choices.cores, choices.gpus)
        ]

    def prepare(self, folder: Path) -> None:
        """Write what its tasks need into the folder that they work in."""
        (folder / self._file).write_text(json.dumps(self.description(), indent=1))
        (folder / RESTARTS).mkdir(exist_ok=True)

    def changed_template(self, folder: Path) -> str | None:
        """A template that is not what it was when this folder was prepared."""
        file = folder / self._file
        before = json.loads(file.read_text())["templates"] if file.exists() else {}
        for source, target in self.options.templates.items():
            if before.get(target, self._templates[target])["text"] != self._templates[target]["text"]:
                return source
        return None

    def description(self) -> dict[str, Any]:
        """What ``run_evaluation`` reads: the options, with the text of the templates."""
        kept = {"results", "progress", "failures", "delimiters", "keep", "output_mb", "application", "restart"}
        return self.options.model_dump(mode="json", include=kept, by_alias=True) | {
            "here": str(self._here),
            "templates": self._templates,
            "copy": self._copy,
            "link": self._link,
            "before": [self._located(command) for command in self.options.before],
            "after": [self._located(command) for command in self.options.after],
        }

    def task(self, uid: TaskId, evaluation: EvaluationRequest) -> TaskSpec:
        """The task of an evaluation.

        Raises:
            ConfigError: a placeholder has a format that does not fit its value.
        """
        values, options = self.values(evaluation), self.options
        folder = f"{evaluation.number:04d}"
        result, progress = f"results/{folder}.json", f"results/{folder}.progress.jsonl"
        plan = {
            "values": values,
            "folder": f"evaluations/{folder}",
            "result": result,
            "progress": progress,
            "restart": f"{RESTARTS}/{folder}",
        }
        with self._at("command"):
            command = words(self._located(options.command), values)
        with self._at("environment"):
            environment = {name: render(text, values) for name, text in options.environment.items()}
        return TaskSpec(
            uid,
            executable=command[0],
            arguments=tuple(command[1:]),
            wrapper=(*_WRAPPER, self._file, json.dumps(plan), "--"),
            parameters=dict(evaluation.values) if evaluation.parameters is None else evaluation.parameters,
            resources=evaluation.resources,
            priority=evaluation.priority,
            walltime_s=options.walltime_s if evaluation.walltime_s is None else evaluation.walltime_s,
            result_file=result,
            progress_file=progress if options.progress is not None else None,
            failure_codes=tuple((code, _FAILURES[kind]) for kind, code in EXIT_CODES.items()),
            environment=environment,
            application=options.application,
        )

    def values(self, evaluation: EvaluationRequest) -> dict[str, Any]:
        """Values of all placeholders."""
        need, start = evaluation.resources, evaluation.restart_from
        return dict(evaluation.values) | {
            "ranks": need.ranks,
            "cores": need.cores_per_rank,
            "gpus": need.gpus_per_rank,
            "seed": evaluation.seed,
            "task": evaluation.number,
            "here": str(self._here),
            "stage": evaluation.stage,
            "restart_in": "" if start is None else f"../../{RESTARTS}/{start:04d}",
            "restart_out": f"../../{RESTARTS}/{evaluation.number:04d}",
        }

    @contextmanager
    def _at(self, place: str) -> Iterator[None]:
        """Have errors name this key."""
        try:
            yield
        except ConfigError as error:
            raise ConfigError(error.problem, (*self.key, place)) from None

    # Checks.

    def samples(self, uid: TaskId, evaluation: EvaluationRequest) -> Iterator[tuple[Key, TaskSpec]]:
        """The task of an evaluation, and one for each command before and after it, with their keys; none is run.

        Raises:
            ConfigError: a relative path leads nowhere, or a placeholder cannot have its format.
        """
        values = self.values(evaluation)
        for file, where, text, delimiters in self._texts():
            try:
                render(text, values, delimiters)
            except ConfigError as error:
                raise ConfigError(f"{file}{error.problem}", where) from None
        self._check_readers()
        task = self.task(uid, evaluation)
        for where, command in self._commands():
            located = self._located(command)[0]
            if os.sep in located and not os.path.isabs(located) and "{" not in located and not self._made(located):
                raise ConfigError(f"{one_line(located)}: there is no such program: correct the path", where)
            if where[-1] == "command":
                yield where, task
            else:
                called = words(self._located(command), values)
                alone = replace(task, wrapper=(), resources=Resources())
                yield where, replace(alone, executable=called[0], arguments=tuple(called[1:]))

    def _check_readers(self) -> None:
        """Raise ConfigError if a library or module that reads results is not there."""
        for name, reader in self.options.results.items():
            where = (*self.key, "results", name)
            if isinstance(reader, FunctionReader):
                module = reader.function.partition(":")[0].partition(".")[0]
                if PathFinder.find_spec(module, [str(self._here), *sys.path]) is None and module not in sys.modules:
                    raise ConfigError(f"there is no module {module} beside the configuration, nor installed", where)
            if isinstance(reader, ArrayReader) and reader.library and find_spec(reader.library) is None:
                raise ConfigError(f"{reader.library} is not installed: pip install 'rlctl[readers]'", where)

    def _located(self, command: Sequence[str]) -> list[str]:
        """A command; the relative path of an executable begins at the configuration, if there is such a file."""
        first, *others = command
        there = os.sep in first and not first.startswith((os.sep, "{")) and (self._here / first).exists()
        return [str(self._here / first) if there else first, *others]

    def _made(self, path: str) -> bool:
        """Whether an executable may be in the folder of an evaluation."""
        targets = [*self._templates, *(os.path.basename(source) for source in (*self._copy, *self._link))]
        first = Path(path).parts[0]
        return bool(self.options.before) or any(Path(target).parts[0] == first for target in targets)

    def _commands(self) -> Iterator[tuple[Key, Sequence[str]]]:
        yield (*self.key, "command"), self.options.command
        for place, commands in (("before", self.options.before), ("after", self.options.after)):
            for i, command in enumerate(commands):
                yield (*self.key, place, str(i)), command

    def _texts(self) -> Iterator[tuple[str, Key, str, Delimiters]]:
        """Where placeholders may be: place in a template, key, text, delimiters."""
        for where, command in self._commands():
            yield from (("", where, word, BRACES) for word in command)
        for name, text in self.options.environment.items():
            yield "", (*self.key, "environment", name), text, BRACES
        for source, target in self.options.templates.items():
            where = (*self.key, "templates")
            for number, line in enumerate(self._templates[target]["text"].splitlines(), 1):
                yield f"{source}:{number}: ", where, line, self.options.delimiters

    def _check_placeholders(self, known: set[str]) -> None:
        for file, where, text, delimiters in self._texts():
            for name in names(text, delimiters):
                if name not in known:
                    advice = "; or set delimiters, if it is none" if file else ""
                    shown = f"{file}placeholder {name.join(delimiters)}"
                    raise ConfigError(f"{shown} is not defined; {did_you_mean(name, known)}{advice}", where)

    def _check_scripts(self) -> None:
        """Scripts beside the configuration that an interpreter is to run have to be there."""
        for where, command in self._commands():
            script = command[1] if len(command) > 1 and command[0] in _INTERPRETERS else ""
            path = script.removeprefix("{here}/")
            if path != script and "{" not in path and not (self._here / path).exists():
                raise ConfigError(f"{one_line(script)}: there is no such file", where)

    def _read_template(self, source: str) -> dict[str, Any]:
        path = self._here / source
        try:
            if path.exists() and not (path.is_file() and path.stat().st_size <= _TEMPLATE_BYTES):
                raise ValueError(f"is no file of at most {_TEMPLATE_BYTES >> 20} MiB: copy or link it")
            return {"text": path.read_text(), "mode": path.stat().st_mode & 0o777}
        except (OSError, ValueError) as error:
            why = "there is no such file" if isinstance(error, FileNotFoundError) else one_line(str(error))
            raise ConfigError(f"{one_line(source)}: {why}", (*self.key, "templates")) from None

    def _files(self, place: str, patterns: Sequence[str]) -> list[str]:
        """Files that match, absolute."""
        sources = list[str]()
        for i, pattern in enumerate(patterns):
            found = sorted(glob.glob(pattern, root_dir=self._here))
            if not found:
                raise ConfigError(f"{one_line(pattern)}: there is no such file", (*self.key, place, str(i)))
            sources += [os.path.normpath(self._here / name) for name in found]
        return list(dict.fromkeys(sources))

    def _check_names(self) -> None:
        """Raise ConfigError if two files would have one name in the folder of an evaluation."""
        taken = dict.fromkeys(STREAMS.values(), "what the program prints")
        for place, files in (("copy", self._copy), ("link", self._link), ("templates", self._templates)):
            for file in files:
                name = os.path.basename(file) if place != "templates" else file
                if name in taken:
                    problem = f"{name} would be there twice: {taken[name]} has this name too"
                    raise ConfigError(problem, (*self.key, place))
                taken[name] = f"a file of {place}"


def description_of(spec: TaskSpec) -> tuple[str, dict[str, Any]] | None:
    """File of the program's description and plan of the evaluation, if ``Program.task`` has made this task."""
    if spec.wrapper[:4] != _WRAPPER:
        return None
    plan: dict[str, Any] = json.loads(spec.wrapper[5])
    return spec.wrapper[4], plan


def evaluation_folder(spec: TaskSpec, workdir: Path) -> Path:
    """Where such a task works."""
    described = description_of(spec)
    return workdir if described is None else workdir / described[1]["folder"]


def kept(spec: TaskSpec) -> TaskSpec:
    """Such a task whose folder is kept, whatever the options say."""
    described = description_of(spec)
    if described is None:
        return spec
    plan = json.dumps({**described[1], "keep": "all"})
    return replace(spec, wrapper=(*spec.wrapper[:5], plan, *spec.wrapper[6:]))
