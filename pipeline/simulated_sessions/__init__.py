"""Whole simulated sessions before a live camera: planned, filmed, recorded, judged. Nothing heavy loads here."""
