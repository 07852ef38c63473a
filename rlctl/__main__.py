"""``rlctl``, and ``python -m rlctl``: Ctrl-C is answered from the first moment, before anything large is loaded."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    try:
        from rlctl import cli

        cli.main()
    except KeyboardInterrupt:
        print("rlctl: stopped", file=sys.stderr)
        sys.exit(130)
    finally:
        # What is left is Python's own end, and an exception there would be shown with a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
