"""Requests to stop: learners write a checkpoint first, and stop the other ranks by messages.

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


def block_stop_signal() -> None:
    """Hold SIGUSR1 back until the rank knows its role; otherwise it would end the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})


class StopSignal:
    """Whether this rank was asked to end in order.

    Attributes:
        asked: it was.
    """

    def __init__(self) -> None:
        self.asked = False
        self._parent = os.getppid()

    def __call__(self) -> bool:
        """The same."""
        return self.asked

    def install_handlers(self, learner: bool) -> None:
        """Handle signals: on a learner, SIGUSR1, SIGTERM and SIGINT ask, and a further SIGTERM or SIGINT interrupts.

        On other ranks SIGUSR1 is ignored; SIGTERM and SIGINT interrupt.

        Also has the system end this rank when the launcher was killed: learners by SIGTERM, so that they write a
        checkpoint, others at once.
        """
        interrupts.begin()
        signal.signal(signal.SIGUSR1, self._ask if learner else _ignore)
        if learner:
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._ask)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        end_with_parent(signal.SIGTERM if learner else signal.SIGKILL)
        if self.orphaned():
            os.kill(os.getpid(), signal.SIGTERM)

    def orphaned(self) -> bool:
        """Whether the launcher that started this rank has gone, so that there is no job to end together with."""
        return os.getppid() != self._parent

    def request(self, number: int) -> None:
        """Ask this process to end in order."""
        self.asked = True

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number != signal.SIGUSR1:
            raise interrupts.Interrupted
        self.asked = True


def _ignore(number: int, frame: FrameType | None) -> None:
    """Not ``SIG_IGN``: programs that an environment starts would inherit that."""


def end_with_parent(number: int) -> None:
    """Have the system send this process a signal when its parent has gone, where it can (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
