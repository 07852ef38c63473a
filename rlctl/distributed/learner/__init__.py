"""Learner ranks: from the chunks that actors send to batches."""
