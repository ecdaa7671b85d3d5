"""The report over many runs: tables beside the published ones, curves, and what may be said of them."""
