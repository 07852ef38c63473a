"""What the messages of ``srun`` say of a step: which rank failed first, or that the machine has lost it."""

from __future__ import annotations

import re
import signal

_LOST = re.compile(
    r"^(?:srun|slurmstepd[^:]*): (?:error: )?.*(Node failure|NODE FAILURE|DUE TO TIME LIMIT|has expired|"
    r"Expired or invalid job|Invalid job id|already completing or completed|Socket timed out|Unable to confirm|"
    r"Zero Bytes|Unable to contact|Communication connection failure|Job credential)",
    re.MULTILINE,
)
"""Messages of ``srun`` about failures of the machine; its exit code is 0 then at times."""

_CANCELLED = re.compile(
    r"^(?:srun: Job step aborted|slurmstepd[^:]*: error: \*\*\* (?:STEP|JOB) .* CANCELLED)", re.MULTILINE
)
"""Messages about a step that was ended from outside, with its job for instance; also after a rank has failed."""

_RANK = re.compile(
    r"^srun: error: \S+: tasks? [\d,-]+: (?:Exited with exit code (\d+)|(.+?)(?: \(core dumped\))?)$", re.MULTILINE
)
"""Messages about the end of a rank; the first one names the cause."""

_SIGNALS = {signal.strsignal(number): int(number) for number in signal.valid_signals()}


def machine_failure(errors: str, signalled: bool) -> str:
    """The message in a step's standard error that tells of a failure of the machine; empty: there is none.

    If the step was ``signalled`` by request, its end from outside is expected.
    """
    found, rank = _LOST.search(errors), _RANK.search(errors)
    if found is None and not signalled:
        found = _CANCELLED.search(errors, 0, rank.start() if rank is not None else len(errors))
    return errors[found.start() :].splitlines()[0] if found else ""


def rank_exit_code(errors: str, code: int) -> int:
    """Exit code of the rank that failed first, 128 + n for a signal; ``srun`` returns the highest one of all ranks."""
    rank = _RANK.search(errors)
    if rank is None:
        return code
    return int(rank[1]) if rank[1] else 128 + _SIGNALS.get(rank[2], code - 128)
