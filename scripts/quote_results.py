"""Writes the tables of ``docs/results`` into the pages that quote them, between their markers."""

from __future__ import annotations

import sys
from pathlib import Path

from rlctl.benchmark.results_page import with_tables

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def main() -> None:
    """Renew the tables of each page that is named."""
    for page in map(Path, sys.argv[1:]):
        before = page.read_text()
        after = with_tables(before, RESULTS)
        if after != before:
            page.write_text(after)
            print(f"{page}: renewed")


if __name__ == "__main__":
    main()
