"""Ends an interchange of Parsl after its controller: ``block_watchdog PID FOLDER TOKEN LEASE_S COMMAND...``.

It starts the interchange as its child, in a session of its own so that Ctrl-C does not reach it, and waits until either
has exited. When the controller has gone it waits for the lease, or for the next controller, and ends the interchange;
Parsl's managers follow when they miss it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from rlctl.executors.parsl.control_file import ControlReader

_POLL_S = 0.5
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run until the interchange has exited."""
    pid, folder, token, lease_s, *command = sys.argv[1:]
    controller = int(pid)
    with contextlib.suppress(OSError):  # it leads one already
        os.setsid()
    interchange = subprocess.Popen(command, preexec_fn=_die_with_parent)

    def terminate(number: int, frame: FrameType | None) -> None:
        interchange.terminate()

    signal.signal(signal.SIGTERM, terminate)
    handles = [os.pidfd_open(interchange.pid)] if hasattr(os, "pidfd_open") else []
    with contextlib.suppress(OSError):
        handles += [os.pidfd_open(controller)] if handles else []
    while interchange.poll() is None and os.getppid() == controller:
        select.select(handles, [], [], None if len(handles) == 2 else _POLL_S)
    control = ControlReader(Path(folder), token, float(lease_s))
    while interchange.poll() is None and control.over is None:
        time.sleep(_POLL_S)
        control.read()
    interchange.kill()
    return interchange.wait()


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
