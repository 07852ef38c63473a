"""Twin delayed deep deterministic policy gradients (Fujimoto et al., arXiv:1802.09477)."""
