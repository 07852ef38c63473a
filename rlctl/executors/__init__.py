"""Where tasks run: this machine, a virtual clock, and the journal that makes them durable."""
