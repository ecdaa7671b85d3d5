"""mmdg_model"""
