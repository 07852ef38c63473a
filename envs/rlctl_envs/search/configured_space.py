"""Makes the space of a search from its options."""

from __future__ import annotations

from pathlib import Path

from rlctl.config.validation import key_prefix
from rlctl.core.errors import ConfigError, Key
from rlctl.programs.options import NAME
from rlctl.programs.program import BUILT_IN
from rlctl_envs.search.candidates import CandidateTable
from rlctl_envs.search.evaluated_points import Space
from rlctl_envs.search.options import SearchOptions
from rlctl_envs.search.parameters import SearchSpace


def configured_space(options: SearchOptions, folder: Path, where: Key) -> Space:
    """The space of ``parameters`` or ``candidates``.

    Args:
        folder: where relative paths begin.
        where: key of the options.

    Raises:
        ConfigError: neither or both are given, or cannot be used.
    """
    if (options.candidates is None) == (not options.parameters):
        raise ConfigError("give parameters, or candidates in place of them", (*where, "parameters"))
    space: Space
    with key_prefix(where):
        if options.candidates is not None:
            space = CandidateTable(options.candidates, folder, options.constraints)
        else:
            try:
                space = SearchSpace(options.parameters, options.constraints)
            except ConfigError as error:
                raise ConfigError(error.problem, ("constraints",)) from None
    for name in space.names:
        if not NAME.fullmatch(name) or name in BUILT_IN:
            key = ("parameters", name) if options.candidates is None else ("candidates", "file")
            what = "a parameter" if options.candidates is None else "a column of candidates"
            why = "every program has this placeholder" if name in BUILT_IN else "use letters, digits and _"
            raise ConfigError(f"{name!r} cannot name {what}: {why}", (*where, *key))
    return space
