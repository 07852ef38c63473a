"""The parts of a saved policy's folder; ``rlctl.saved_policy`` saves and loads it."""
