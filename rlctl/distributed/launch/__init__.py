"""Starts ranks and ends them."""
