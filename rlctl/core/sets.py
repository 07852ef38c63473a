"""Layout of observations made of sets, within the flat numbers that a policy reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SetLayout:
    """Numbers that are there once, then the rows of each set.

    The first number of a row is 1 where there is something, and 0 where the row is empty; then all of it is 0.

    Attributes:
        once: how many numbers come first.
        sets: (rows, numbers in a row) of each set. The first set holds the choices of the one head of the actions, in
            their order.
        prior: which number of a choice says how much a rule favours it; None: there is none.
    """

    once: int
    sets: tuple[tuple[int, int], ...]
    prior: int | None = None

    @property
    def length(self) -> int:
        """Of the flat observation.

        >>> SetLayout(2, ((3, 4), (5, 1))).length
        19
        """
        return self.once + sum(rows * numbers for rows, numbers in self.sets)

    @property
    def choices(self) -> int:
        """Rows of the first set."""
        return self.sets[0][0]
