"""Weights from elsewhere: foreign state dicts in, files of our own format out. Nothing here runs at scoring time."""
