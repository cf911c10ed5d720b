"""Pictures, made from what a fit left in its folder or from a cohort, never from a model.

Each function takes plain values and returns a matplotlib `Figure`, without pyplot's state.
"""
