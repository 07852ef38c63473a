"""Simulations that run in segments, whose control values are chosen anew at each one."""
