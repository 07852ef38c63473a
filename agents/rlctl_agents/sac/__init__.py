"""Soft actor-critic (Haarnoja et al., arXiv:1801.01290)."""
