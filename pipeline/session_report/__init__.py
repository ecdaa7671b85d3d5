"""Figures of ISO/IEC 30107-3 on judged sessions, as one page and as JSON."""
