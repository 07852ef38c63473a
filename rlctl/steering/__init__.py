"""Steering of real campaigns: the control loop, and reports about runs."""

from rlctl.steering.control import steer
from rlctl.steering.summary import Summary

__all__ = ["Summary", "steer"]
