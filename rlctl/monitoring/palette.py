"""Colours of purposes and task states, the same in reports and in the pictures in TensorBoard.

They are those of Okabe and Ito (2008), which colour-blind readers can distinguish, with lighter variants on dark.
"""

from __future__ import annotations

from collections.abc import Mapping

from rlctl.monitoring.ledger import Purpose

COLOURS: Mapping[str, tuple[str, str]] = {
    "blue": ("#0072b2", "#3f9fd9"),
    "red": ("#d55e00", "#ee7b2d"),
    "green": ("#009e73", "#1fb98d"),
    "orange": ("#e69f00", "#f0b429"),
    "violet": ("#b5609a", "#d98cc0"),
    "sky": ("#56b4e9", "#7cc7f0"),
    "yellow": ("#a89400", "#d8c545"),
    "grey": ("#c3cad1", "#4d5761"),
}
"""Hexadecimal values on light and on dark background."""

PURPOSE_COLOURS: Mapping[Purpose, str] = {
    Purpose.USEFUL: "green",
    Purpose.WASTED: "red",
    Purpose.BOOT: "orange",
    Purpose.QUEUE: "sky",
    Purpose.CONTROLLER: "violet",
    Purpose.IDLE: "grey",
}
STATE_COLOURS: Mapping[str, str] = {
    "done": "green",
    "running": "blue",
    "failed": "red",
    "canceled": "yellow",
    "starting": "orange",
}
"""By task state; ``starting``: the task holds its cores, and its program does not run yet."""


def css_declarations(dark: bool) -> str:
    """CSS declarations of all colours."""
    return " ".join(f"--{name}: {of[dark]};" for name, of in COLOURS.items())


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue on light background.

    >>> rgb("green")
    (0, 158, 115)
    """
    red, green, blue = bytes.fromhex(COLOURS[colour][0][1:])
    return red, green, blue
