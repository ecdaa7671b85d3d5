"""capture/simulated"""
