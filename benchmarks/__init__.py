"""What `conocc` costs in time and memory, beside what one would write or pick instead.

``python -m benchmarks`` measures all sections and writes their tables into
``docs/research/performance.md``.
A section is one module with a function ``section(*, quick)`` that returns Markdown, and its name
in `benchmarks.__main__`.
"""
