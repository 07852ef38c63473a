"""Ensembles of unequal tasks that share an allocation."""
