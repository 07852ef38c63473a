"""An evaluation as it would be run: its command, and the files that its program finds."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlctl.core.task import TaskSpec
from rlctl.programs.placeholders import render, words
from rlctl.programs.program import BUILT_IN, description_of

LINES = 12
"""Lines of a file that are shown to people."""

_JSON_CHARACTERS = 1 << 16


@dataclass(frozen=True, slots=True)
class RenderedFile:
    """A file in the folder of an evaluation.

    Attributes:
        name: in that folder.
        origin: ``template``, ``copy`` or ``link``.
        source: the file or folder that is copied or linked; None: it is a template.
        text: content of a rendered template.
    """

    name: str
    origin: str
    source: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class RenderedEvaluation:
    """An evaluation that has not been run.

    Attributes:
        folder: its folder in the run folder's ``work``.
        parameters: by name.
        command: with its launcher, as the executor starts it.
        before: the commands before it.
        after: the commands after it.
        environment: variables that the program's options set.
        application: whose environment it has; None: that of rlctl.
        resources: what it occupies.
        walltime_s: None: it has none.
        results: readers by the names of results.
        files: that the program finds.
    """

    folder: str
    parameters: Mapping[str, Any]
    command: Sequence[str]
    before: Sequence[Sequence[str]]
    after: Sequence[Sequence[str]]
    environment: Mapping[str, str]
    application: str | None
    resources: Mapping[str, Any]
    walltime_s: float | None
    results: Mapping[str, Mapping[str, Any]]
    files: Sequence[RenderedFile]

    def to_json(self) -> dict[str, Any]:
        """For ``--json``; long texts are cut."""
        data = asdict(self)
        for file in data["files"]:
            file["text"] = file["text"] and file["text"][:_JSON_CHARACTERS]
        return data

    def to_text(self) -> str:
        """For people."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        values = ", ".join(f"{name} {_short(value)}" for name, value in self.parameters.items())
        yield f"evaluation in work/{self.folder}: {values or 'no parameters'}"
        need = {**self.resources, "walltime_s": self.walltime_s}
        yield f"  {', '.join(f'{name} {_short(value)}' for name, value in need.items() if value)}"
        if self.application is not None:
            yield f"  application {self.application}"
        for name, value in self.environment.items():
            yield f"  {name}={shlex.quote(value)}"
        for command in self.before:
            yield f"  before: {shlex.join(command)}"
        yield f"  $ {shlex.join(self.command)}"
        for command in self.after:
            yield f"  after: {shlex.join(command)}"
        for file in self.files:
            if file.text is None:
                yield f"  {file.name}: {file.origin} of {file.source}"
                continue
            lines = file.text.splitlines()
            yield f"  {file.name}: a template, {len(file.text)} characters"
            yield from (f"    | {line[:150]}" for line in lines[:LINES])
            if len(lines) > LINES:
                yield "    | ..."
        yield f"  results: {', '.join(self.results)}"


def rendered(spec: TaskSpec, command: Sequence[str], workdir: Path) -> RenderedEvaluation | None:
    """The evaluation of a task that ``Program.task`` has made; None: it is another task.

    Args:
        command: its program and arguments with their launcher.
        workdir: where ``Program.prepare`` has written the program.
    """
    described = description_of(spec)
    if described is None:
        return None
    file, plan = described
    program = json.loads((workdir / file).read_text())
    values, delimiters = plan["values"], tuple(program["delimiters"])
    files = [
        RenderedFile(os.path.basename(source), place, source) for place in ("copy", "link") for source in program[place]
    ]
    for name, template in program["templates"].items():
        files.append(RenderedFile(name, "template", text=render(template["text"], values, delimiters)))
    return RenderedEvaluation(
        folder=plan["folder"],
        parameters={name: value for name, value in values.items() if name not in BUILT_IN},
        command=command,
        before=[words(each, values) for each in program["before"]],
        after=[words(each, values) for each in program["after"]],
        environment=spec.environment,
        application=spec.application,
        resources=asdict(spec.resources),
        walltime_s=spec.walltime_s,
        results={name: _given(reader) for name, reader in program["results"].items()},
        files=files,
    )


def _given(reader: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in reader.items() if value is not None}


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
