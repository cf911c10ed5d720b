"""Whole files or none, tables, saved tensors, progress, and numbers as people read them."""
