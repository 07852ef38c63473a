"""The programs that a configuration describes, and what stands in for them on the twin."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlctl.config.schema import Config
from rlctl.config.twin_section import TwinSection
from rlctl.config.validation import did_you_mean, validated
from rlctl.core.errors import ConfigError, Key
from rlctl.programs.options import ProgramOptions
from rlctl.programs.program import Program

PROGRAM = "program"
"""Name of a single program."""


@dataclass(frozen=True, slots=True)
class ConfiguredPrograms:
    """The sections ``program`` or ``programs`` of a configuration, and ``twin``.

    Attributes:
        sections: their content by name; a single one has the name ``program``.
        folder: where relative paths begin.
        single: whether it is the section ``program``.
        twin: what stands in for them, its paths absolute; None: what the campaign invents.
    """

    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    folder: Path = Path()
    single: bool = False
    twin: TwinSection | None = None

    @classmethod
    def of(cls, config: Config) -> ConfiguredPrograms:
        """Those of a configuration."""
        folder = config.resolve(config.folder or "")
        twin = None if config.twin is None else config.twin.absolute(config.resolve)
        if config.program is not None:
            return cls({PROGRAM: config.program}, folder, single=True, twin=twin)
        return cls(config.programs, folder, twin=twin)

    def key(self, name: str) -> Key:
        """Where a program stands in the configuration."""
        return (PROGRAM,) if self.single else ("programs", name)

    def options(self, name: str | None = None, key: Key | None = None) -> tuple[str, ProgramOptions]:
        """Name and options of a program; None: the only one.

        Args:
            key: where the configuration names it.

        Raises:
            ConfigError: there is no such program, or its options cannot be used.
        """
        if not self.sections:
            problem = "the campaign runs a program: add this section, with command and results"
            raise ConfigError(problem, (PROGRAM,))
        if name is None:
            if len(self.sections) > 1:
                raise ConfigError(f"say which program: {', '.join(self.sections)}", key)
            name = next(iter(self.sections))
        if name not in self.sections:
            raise ConfigError(f"unknown program {name!r}; {did_you_mean(name, self.sections)}", key)
        return name, validated(ProgramOptions, self.sections[name], self.key(name))

    def program(self, name: str, known: Collection[str]) -> Program:
        """Make a program.

        Args:
            known: names of placeholders besides those of every program.

        Raises:
            ConfigError: a placeholder is not defined, or a file is missing.
        """
        return Program(name, self.options(name)[1], self.folder, known, self.key(name))
