"""``rlctl``, and ``python -m rlctl``: interrupts are answered from the first moment, before the large imports."""

from __future__ import annotations

import sys
from typing import NoReturn

from rlctl import interrupts
from rlctl.distributed import stopping
from rlctl.distributed.surroundings import under_mpi


def main() -> NoReturn:
    """Run the command line."""
    try:
        if under_mpi():
            stopping.defer()
        else:
            interrupts.begin()
        from rlctl import cli

        cli.main()
    except KeyboardInterrupt:
        print("rlctl: stopped", file=sys.stderr)
        sys.exit(130)
    finally:
        interrupts.end()


if __name__ == "__main__":
    main()
