"""Checks that authors of campaigns and policies run on their own code."""

from rlctl.testing.checks import Checked, check_campaign, check_policy

__all__ = ["Checked", "check_campaign", "check_policy"]
