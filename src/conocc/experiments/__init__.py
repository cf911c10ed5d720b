"""Many fits and what comes of them: runs, benchmarks, cross-validation, scoring, tables."""
