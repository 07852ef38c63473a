"""Rules: policies with a handful of parameters."""
