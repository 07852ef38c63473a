"""Workloads that come from elsewhere: a model of supercomputers' users, logs, journals of one's own campaigns."""
