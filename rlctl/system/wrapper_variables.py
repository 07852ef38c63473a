"""Variables of the dynamic linker on their way through a wrapper of a program: they could break its interpreter."""

from __future__ import annotations

from collections.abc import Mapping

_PREFIX, _LINKER = "RLCTL_PROGRAM_", "LD_"


def out_of_sight(variables: Mapping[str, str]) -> dict[str, str]:
    """The same for a wrapper, which gives them to its program by ``restored``.

    >>> out_of_sight({"LD_LIBRARY_PATH": "/lib", "PATH": "/bin"})
    {'RLCTL_PROGRAM_LD_LIBRARY_PATH': '/lib', 'PATH': '/bin'}
    """
    return {f"{_PREFIX}{name}" if name.startswith(_LINKER) else name: text for name, text in variables.items()}


def restored(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of the program, out of those of its wrapper.

    >>> restored({"RLCTL_PROGRAM_LD_LIBRARY_PATH": "/lib", "PATH": "/bin", "LD_LIBRARY_PATH": "/usr/lib"})
    {'PATH': '/bin', 'LD_LIBRARY_PATH': '/lib'}
    """
    hidden = {name.removeprefix(_PREFIX): text for name, text in variables.items() if name.startswith(_PREFIX)}
    return {name: text for name, text in variables.items() if not name.startswith(_PREFIX)} | hidden
