"""The nouns: tasks, machines, campaigns, policies, and the driver that couples them."""
