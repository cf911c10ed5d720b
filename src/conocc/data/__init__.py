"""Cohorts: layouts, reading of images, preprocessing, patients, splits, cache, phantoms."""
