"""Ctrl-C at a chosen step of training, and what must be equal afterwards."""

import signal

import numpy as np

from conocc import training


def interrupt_at(step: int, monkeypatch) -> list[int]:
    """Send Ctrl-C in the given step of training; the list grows by one with each step."""
    steps: list[int] = []
    original = training._step

    def interrupting(optimizer, loss, batch, epoch):
        steps.append(epoch)
        if len(steps) == step:
            signal.raise_signal(signal.SIGINT)
        return original(optimizer, loss, batch, epoch)

    monkeypatch.setattr(training, "_step", interrupting)
    return steps


def same(a, b) -> bool:
    """Whether all that two detectors have learned is equal to the last bit."""
    (tensors, values), (others, other_values) = a._learned(), b._learned()
    return (
        values == other_values
        and tensors.keys() == others.keys()
        and all(np.array_equal(tensors[k], others[k]) for k in tensors)
    )
