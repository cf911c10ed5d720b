"""Whole files or none, saved tensors, progress."""
