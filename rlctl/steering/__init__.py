"""The control loop of a real campaign."""

from rlctl.steering.control import steer
from rlctl.steering.summary import Summary

__all__ = ["Summary", "steer"]
