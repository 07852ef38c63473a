"""The judge: trains, tunes and compares policies and rules, and says how sure its numbers are."""
