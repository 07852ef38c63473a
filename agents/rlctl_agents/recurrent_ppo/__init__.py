"""RecurrentPPO of sb3-contrib, for what must be remembered; it knows no masks: the campaign replaces masked choices."""
