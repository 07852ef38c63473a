"""What PPO, MaskablePPO and RecurrentPPO share."""
