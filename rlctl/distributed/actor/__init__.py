"""Actor ranks: environments, policies in NumPy, and the loop that joins them."""
