"""Proximal policy optimisation (Schulman et al., arXiv:1707.06347), with masks and a critic that sees the twin."""
