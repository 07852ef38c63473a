"""Comparison of policies and the tuning of rules."""
