"""What the simulator gives away: probes, cues, balance, noise of simulated trees. Nothing heavy loads here."""
