"""Function calls in warm worker processes."""
