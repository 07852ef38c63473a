"""Tasks that a model plays under a virtual clock."""
