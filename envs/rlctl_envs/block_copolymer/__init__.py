"""Block-copolymer annealing."""
