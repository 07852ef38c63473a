"""MaskablePPO of sb3-contrib."""
