"""The programs that tasks of a real ensemble run: they take chosen work on chosen ranks, report, and can go on."""
