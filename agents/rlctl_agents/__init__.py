"""Policies for rlctl: rules and learned networks."""
