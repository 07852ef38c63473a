"""Tasks as processes on this machine."""
