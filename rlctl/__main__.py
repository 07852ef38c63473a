"""``rlctl`` and ``python -m rlctl``: handles interrupts from the start, before the large imports."""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

from rlctl.distributed.comm.mpi_environment import under_mpi
from rlctl.distributed.launch import signals
from rlctl.system import interrupts

COLLECT = 50_000
"""Objects made and kept between two searches for cyclic garbage.

At Python's 700, a search in the hundreds of campaigns that a training holds in memory takes a fifth of its time.
"""


def main() -> NoReturn:
    """Run the command line."""
    gc.set_threshold(COLLECT)
    try:
        if under_mpi():
            signals.block_stop_signal()
        else:
            interrupts.begin()
        from rlctl.cli import main

        main.main()
    except KeyboardInterrupt:
        print("rlctl: stopped", file=sys.stderr)
        sys.exit(130)
    finally:
        interrupts.end()


if __name__ == "__main__":
    main()
