"""A rule for the campaign ``curing``: where a straight line between the ends of the bracket meets the target."""

import rlctl


class Secant(rlctl.SimpleRule):
    """Interpolate between the peaks at the ends of the bracket; bisect where an end has not been measured.

    Args:
        coarse_above_K: coarse runs are made while the bracket is wider than this.
        inwards: share of the way from the interpolated point to the middle of the bracket. A secant that is curved
            misses on the same side again and again; a step inwards brings the other end closer too.
        apart: while another run is in progress, stay this share of the bracket away from it.
    """

    name = "secant"
    # What `rlctl tune` may change: from, to, and "log" or "int" if it is to be searched so.
    SPACE = {"coarse_above_K": (0.5, 60.0, "log"), "inwards": (0.0, 0.6), "apart": (0.02, 0.4)}  # noqa: RUF012

    def __init__(self, coarse_above_K=5.0, inwards=0.2, apart=0.15):
        self.coarse_above_K = coarse_above_K
        self.inwards = inwards
        self.apart = apart

    def act(self, decision):
        """Answer with named quantities; the campaign's documentation names them and the fields."""
        fields = decision.fields
        (low, high), (low_peak, high_peak) = fields["bracket_K"], fields["peaks_K"]
        share = 0.5
        if low_peak is not None and high_peak is not None:
            share = (fields["target_K"] - low_peak) / (high_peak - low_peak)
            share += self.inwards * (0.5 - share)
        for oven in fields["running_K"]:
            other = (oven - low) / (high - low)
            if abs(share - other) < self.apart:
                share = other + self.apart if other < 0.5 else other - self.apart
        coarse = high - low > self.coarse_above_K and fields["undecided"] == 0
        return {"oven_K": low + share * (high - low), "coarse": coarse}
