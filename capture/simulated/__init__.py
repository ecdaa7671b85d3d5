"""A simulated RGB-D-IR camera: heads, attacks, sensors and ground truth. All its data is simulated.

Nothing heavy loads here; import `capture.simulated.camera.SimulatedCamera` (extra `simulate`).
"""
