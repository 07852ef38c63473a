"""Proximal policy optimisation on a twin."""
