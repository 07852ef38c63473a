"""What a command owes its machine: interrupts, time limits, files written whole, crash reports."""
