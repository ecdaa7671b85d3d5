"""Simulated stand-ins for the benchmark's data sets. Nothing here is of a real person; nothing heavy loads here."""
