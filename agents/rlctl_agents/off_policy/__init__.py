"""SAC, TD3 and DQN: they learn from a replay buffer, which suits simulations whose steps are dear."""
