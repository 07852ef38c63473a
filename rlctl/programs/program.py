"""``Program``: makes the tasks of a user's program, and checks what can be checked before one runs."""

from __future__ import annotations

import glob
import itertools
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlctl.config.validation import did_you_mean
from rlctl.core.errors import ConfigError, Key
from rlctl.core.task import Failure, Resources, TaskId, TaskSpec
from rlctl.programs.options import ProgramOptions
from rlctl.programs.placeholders import BRACES, names, render
from rlctl.programs.run_evaluation import EXIT_CODES, fill_folder

BUILT_IN = frozenset({"ranks", "cores", "gpus", "seed", "task", "here", "restart_in", "restart_out", "stage"})
"""Placeholders of every program; see ``ProgramOptions``."""

_FAILURES = {"exit": Failure.EXIT, "read": Failure.GARBAGE, "output": Failure.OUTPUT, "signal": Failure.SIGNAL}


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """One evaluation of a program.

    Attributes:
        number: 0, 1, 2 ... within the run; names its folder.
        values: of the placeholders, parameters and values of the stage.
        resources: what it occupies.
        attempt: 0 for the first task of the evaluation.
        seed: for the placeholder of this name.
        stage: likewise.
        restart_from: number of the evaluation whose restart file it begins with; None: with none.
        walltime_s: seconds after which it is stopped; None: as the program says.
    """

    number: int
    values: Mapping[str, Any]
    resources: Resources
    attempt: int = 0
    seed: int = 0
    stage: str = ""
    restart_from: int | None = None
    walltime_s: float | None = None


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
        self._copy, self._link = list(self._files("copy")), list(self._files("link"))
        self._check_placeholders({*known, *BUILT_IN})

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

    def description(self) -> dict[str, Any]:
        """What ``run_evaluation`` reads: the options, with the text of the templates."""
        kept = {"before", "after", "results", "progress", "failures", "delimiters", "keep", "output_mb"}
        data = self.options.model_dump(mode="json", include=kept, by_alias=True)
        return data | {"here": str(self._here), "templates": self._templates, "copy": self._copy, "link": self._link}

    def task(self, uid: TaskId, evaluation: EvaluationRequest) -> TaskSpec:
        """The task of an evaluation."""
        values, options = self.values(evaluation), self.options
        folder = f"{evaluation.number:04d}"
        result, progress = f"results/{folder}.json", f"results/{folder}.progress.jsonl"
        plan = {"values": values, "folder": f"evaluations/{folder}", "result": result, "progress": progress}
        command = [self._program_path(words) for words in self.command(evaluation)[:1]] + self.command(evaluation)[1:]
        return TaskSpec(
            uid,
            executable=command[0],
            arguments=tuple(command[1:]),
            wrapper=("python", "-I", "-m", "rlctl.programs.run_evaluation", self._file, json.dumps(plan), "--"),
            parameters=dict(evaluation.values),
            resources=evaluation.resources,
            walltime_s=options.walltime_s if evaluation.walltime_s is None else evaluation.walltime_s,
            result_file=result,
            progress_file=progress if options.progress is not None else None,
            failure_codes=tuple((code, _FAILURES[kind]) for kind, code in EXIT_CODES.items()),
            environment={name: render(text, values) for name, text in options.environment.items()},
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
            "restart_in": "" if start is None else f"../../restarts/{start:04d}",
            "restart_out": f"../../restarts/{evaluation.number:04d}",
        }

    def command(self, evaluation: EvaluationRequest) -> list[str]:
        """Its command, without a launcher."""
        values = self.values(evaluation)
        return [render(word, values) for word in self.options.command]

    def render(self, evaluation: EvaluationRequest, folder: Path) -> None:
        """Fill a folder as it is when the command starts, without running anything."""
        fill_folder(self.description(), self.values(evaluation), folder)

    # Checks.

    def check_installed(self) -> None:
        """Raise ConfigError if the program is not on this machine; one of an application is the executor's to find."""
        if self.options.application is not None:
            return
        for where, words in self._commands():
            if "{" not in words[0] and shutil.which(self._program_path(words[0])) is None:
                raise ConfigError(f"{words[0]}: there is no such program: install it, or correct the path", where)

    def _program_path(self, word: str) -> str:
        """A relative path begins at the configuration's folder."""
        return str(self._here / word) if "/" in word and not word.startswith("/") else word

    def _commands(self) -> Iterator[tuple[Key, Sequence[str]]]:
        yield (*self.key, "command"), self.options.command
        for place in ("before", "after"):
            for i, words in enumerate(getattr(self.options, place)):
                yield (*self.key, place, str(i)), words

    def _check_placeholders(self, known: set[str]) -> None:
        texts = [(where, word, BRACES) for where, words in self._commands() for word in words]
        texts += [((*self.key, "environment", name), text, BRACES) for name, text in self.options.environment.items()]
        texts += [((*self.key, "templates"), text, self.options.delimiters) for text in self._templates.values()]
        for where, text, delimiters in texts:
            for name in names(text, delimiters):
                if name not in known:
                    shown = name.join(delimiters)
                    raise ConfigError(f"placeholder {shown} is not defined; {did_you_mean(name, known)}", where)

    def _read_template(self, source: str) -> str:
        path = self._here / source
        try:
            return path.read_text()
        except (OSError, ValueError) as error:
            why = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
            raise ConfigError(f"{source}: {why}", (*self.key, "templates")) from None

    def _files(self, place: str) -> Iterator[str]:
        for pattern in getattr(self.options, "copy_" if place == "copy" else place):
            found = sorted(glob.glob(str(self._here / pattern)))
            if not found:
                raise ConfigError(f"{pattern}: there is no such file", (*self.key, place))
            yield from found
