"""What the simulator gives away: probes, single cues, balance and noise of simulated trees. Nothing heavy loads here."""
