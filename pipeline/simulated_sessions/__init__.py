"""Whole simulated sessions before a live camera: planned, filmed, recorded, decided, evaluated. Nothing heavy loads here."""
