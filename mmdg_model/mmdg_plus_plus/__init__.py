"""MMDG++ (IEEE TPAMI 47(9):7608-7625, 2025): frozen CLIP, U-Adapter++, asymmetric domain prompts."""
