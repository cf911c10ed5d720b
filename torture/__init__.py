"""What the package must survive: damaged files, faults in mid-work, patients who must not show.

Run as commands (``python -m torture.mutations``, ``python -m torture.strikes``); short forms of
them are tests. What they found is told in ``docs/research/reliability.md``.
"""
