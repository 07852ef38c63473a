"""Progress and TensorBoard."""
