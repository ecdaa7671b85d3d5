"""Training methods: one file and one registry row each, all behind `contract.Method`."""
