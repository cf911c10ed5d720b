"""Whole files or none, tables, saved tensors, progress."""
