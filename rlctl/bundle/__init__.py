"""The parts of a saved policy's folder; ``rlctl.bundle.saved_policy`` saves and loads it."""
