"""MaskablePPO of sb3-contrib: PPO on what the environment shows, with masks beside it."""
