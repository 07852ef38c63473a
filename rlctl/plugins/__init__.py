"""What packages register: campaigns, policies, executors, learners."""
