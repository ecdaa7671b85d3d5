"""mmdg_model/training"""
