"""Learners and actors on MPI ranks: actors hold environments and a snapshot of the policy, learners the algorithm."""
