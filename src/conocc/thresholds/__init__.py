"""From scores to decisions: conformal p-values, promises, rules."""
