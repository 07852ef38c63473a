"""Variables of linker and Python on their way through the wrapper of a program, whose interpreter they could break."""

from __future__ import annotations

from collections.abc import Mapping

_PREFIX, _HARMFUL = "RLCTL_PROGRAM_", ("LD_", "PYTHON")


def out_of_sight(variables: Mapping[str, str]) -> dict[str, str]:
    """The same for a wrapper, which gives them to its program by ``restored``.

    >>> out_of_sight({"LD_LIBRARY_PATH": "/lib", "PATH": "/bin"})
    {'RLCTL_PROGRAM_LD_LIBRARY_PATH': '/lib', 'PATH': '/bin'}
    """
    return {f"{_PREFIX}{name}" if name.startswith(_HARMFUL) else name: text for name, text in variables.items()}


def restored(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of the program, out of those of its wrapper.

    >>> restored({"RLCTL_PROGRAM_LD_LIBRARY_PATH": "/lib", "PATH": "/bin", "LD_LIBRARY_PATH": "/usr/lib"})
    {'PATH': '/bin', 'LD_LIBRARY_PATH': '/lib'}
    """
    hidden = {name.removeprefix(_PREFIX): text for name, text in variables.items() if name.startswith(_PREFIX)}
    return {name: text for name, text in variables.items() if not name.startswith(_PREFIX)} | hidden
