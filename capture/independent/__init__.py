"""A second, independent renderer of the simulated scenes (Mitsuba 3), as a camera that no training ever sees."""
