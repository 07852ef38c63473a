"""A small backend for rlctl: programs as child processes of the controller."""
