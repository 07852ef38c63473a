"""How a rank hears that the job is to end: learners write a checkpoint first, the others are told by their learner.

``rlctl train --ranks`` turns Ctrl-C, SIGTERM and SIGUSR1 into SIGUSR1 to all ranks, because launchers answer SIGTERM by
killing. Batch systems send SIGUSR1 or SIGTERM themselves before the walltime is over.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from types import FrameType

from rlctl.system import interrupts

_PR_SET_PDEATHSIG = 1


def defer() -> None:
    """A SIGUSR1 that comes before the rank knows its role waits until it does; otherwise it would end the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})


class Stop:
    """Whether this rank was asked to end in order.

    Attributes:
        asked: it was.
    """

    def __init__(self) -> None:
        self.asked = False
        self._parent = os.getppid()

    def __call__(self) -> bool:
        """Whether it was asked."""
        return self.asked

    def listen(self, learner: bool) -> None:
        """A learner notes SIGUSR1, SIGTERM and SIGINT, and a further SIGTERM or SIGINT interrupts it.

        The others mind no SIGUSR1; SIGTERM and SIGINT interrupt them.

        Also asks the system to end this rank when the launcher has been killed: learners by SIGTERM, so that they write
        a checkpoint, others at once.
        """
        interrupts.begin()
        signal.signal(signal.SIGUSR1, self._note if learner else _ignore)
        if learner:
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        end_with_parent(signal.SIGTERM if learner else signal.SIGKILL)
        if self.orphaned():
            os.kill(os.getpid(), signal.SIGTERM)

    def orphaned(self) -> bool:
        """Whether the launcher that started this rank has gone: there is nobody left to end the job together with."""
        return os.getppid() != self._parent

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number != signal.SIGUSR1:
            raise interrupts.Interrupted
        self.asked = True


def _ignore(number: int, frame: FrameType | None) -> None:
    """Not ``SIG_IGN``: that would be handed on to the programs that an environment starts."""


def end_with_parent(number: int) -> None:
    """Have the system send this process a signal when its parent is gone, where it can (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
