"""The rule to beat: bisection, first with coarse runs, then with fine ones."""

from itertools import pairwise

import rlctl


class Bisection(rlctl.SimpleRule):
    """Halve the bracket; where another run is in progress, halve the larger part that it leaves."""

    name = "bisection"

    def act(self, decision):
        """Named quantities: the campaign's ``apply`` says which."""
        fields = decision.fields
        ends = sorted([*fields["bracket_K"], *fields["running_K"]])
        left, right = max(pairwise(ends), key=lambda pair: pair[1] - pair[0])
        low, high = fields["bracket_K"]
        return {"oven_K": 0.5 * (left + right), "coarse": high - low > 10.0 and fields["undecided"] == 0}
