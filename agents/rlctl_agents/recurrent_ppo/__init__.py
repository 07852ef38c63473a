"""RecurrentPPO of sb3-contrib, for what must be remembered."""
