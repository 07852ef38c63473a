"""The one family of errors that a user can cause; the command line turns each into one line. And one interrupt."""

from __future__ import annotations

from typing import ClassVar

Key = tuple[str, ...]
"""The path of a key in a file: ``("campaign", "options", "films")``; items of lists by number, from 0."""


class RlctlError(Exception):
    """An error that the user can fix; names the thing, the value, the place and the next step.

    Code that finds a key of the configuration to be wrong names the key; ``rlctl.config.yaml_source.Source.located``
    adds file and line.

    Attributes:
        exit_code: of the command line.
        problem: what is wrong, and what to do.
        key: where the value stands in the configuration; None: it is no key's fault, or ``problem`` names the place.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, problem: str, key: Key | None = None) -> None:
        super().__init__(f"{'.'.join(key)}: {problem}" if key else problem)
        self.problem = problem
        self.key = key


class ConfigError(RlctlError):
    """A configuration, option or override that cannot be used."""


class JournalError(RlctlError):
    """A journal that is missing, of another schema, or of another campaign."""


class PolicyError(RlctlError):
    """A saved policy that is missing, damaged, of another schema or of another campaign."""


class LaunchError(RlctlError):
    """A program, launcher or resource that a task needs and this machine does not have."""


class ContractError(RlctlError):
    """A campaign that breaks a promise of ``rlctl.core.campaign``; the message names the method at fault."""


class RequestError(RlctlError, ValueError):
    """What is asked of a task or an executor is of a type, or has a value, that cannot be meant."""


class StorageError(RlctlError):
    """A file or folder that cannot be read or written."""


class RanksLostError(RlctlError):
    """Ranks that a training cannot do without are gone; it goes on from its newest checkpoint."""


class StoppedError(RlctlError):
    """A campaign that stopped itself, since its tasks fail again and again or its policy gives no answer; see ``steer``
    of the configuration. It goes on with ``resume``.
    """

    exit_code = 3


class NoAnswerError(RlctlError):
    """A rule, campaign or task model that does not answer in time."""


class SimulationDiverged(RlctlError):
    """For environments to raise when the simulated system has blown up: the episode ends, by the policy's fault."""


class EnvironmentFault(RlctlError):
    """An environment that raised an exception, or gave what nothing can be learned from.

    Attributes:
        kind: ``raised``, ``wrong_shape`` or ``not_finite``, see ``rlctl.distributed.actor.env_guard.EnvFailure``.
    """

    def __init__(self, problem: str, kind: str = "raised") -> None:
        super().__init__(problem)
        self.kind = kind


class LearningDiverged(RlctlError):
    """Weights that are not finite any more; the newest checkpoint is from before."""


class AllocationEnds(KeyboardInterrupt):
    """The batch job comes to its end: like an interrupt, but the campaign is to go on in another job."""


def described(error: BaseException) -> str:
    """Type and text of an exception, even if its ``__str__`` raises.

    >>> described(KeyError("x"))
    "KeyError: 'x'"
    """
    try:
        text = str(error)
    except BaseException as broken:
        text = f"its text cannot be had, {type(broken).__name__}"
    return f"{type(error).__name__}: {text}"


def reason(error: BaseException, most: int = 1_000_000) -> str:
    """Type and text of an exception, in one line of at most so many characters."""
    return one_line(described(error), most).removesuffix(":")


def brief(value: object) -> str:
    """A value for people, on one line, cut if it is long, even if its ``__repr__`` raises.

    >>> brief("x" * 100)[-6:]
    'xxx...'
    """
    try:
        return one_line(repr(value), 59)
    except BaseException:
        return f"an object of type {type(value).__name__}"


def one_line(text: str, most: int = 120) -> str:
    """A text without line breaks, cut if it has more than ``most`` characters.

    >>> one_line("two\\n  lines"), one_line("x" * 100, 10)
    ('two lines', 'xxxxxxx...')
    """
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."
