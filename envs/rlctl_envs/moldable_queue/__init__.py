"""A queue of moldable tasks."""
