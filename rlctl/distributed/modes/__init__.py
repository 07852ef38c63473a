"""Ways to train over ranks: asynchronous, in lock-step, several agents."""
