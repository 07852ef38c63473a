"""What SAC, TD3 and DQN share: they learn from a replay buffer, which suits simulations whose steps are costly."""
