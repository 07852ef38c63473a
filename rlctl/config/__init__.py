"""Experiments as YAML: schema, positions in files, messages, provenance."""
