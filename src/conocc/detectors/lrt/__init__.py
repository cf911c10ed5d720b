"""The likelihood-ratio detector, and what only it needs."""
