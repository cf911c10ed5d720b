"""Ctrl-C at a chosen step of training, and what must be equal afterwards."""

import signal

import torch

from conocc import training
from conocc.detectors.persistence import learned


def interrupt_at(step: int, monkeypatch) -> list[int]:
    """Send Ctrl-C in the given step of training; the list grows by one with each step.

    The state is saved at the end of each epoch, however short.
    """
    steps: list[int] = []
    original = training._step

    def interrupting(optimizer, loss, batch, epoch, chance):
        steps.append(epoch)
        if len(steps) == step:
            signal.raise_signal(signal.SIGINT)
        return original(optimizer, loss, batch, epoch, chance)

    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(training, "_step", interrupting)
    return steps


def same(a, b) -> bool:
    """Whether all that two detectors have learned is equal to the last bit."""
    (tensors, values), (others, other_values) = learned(a), learned(b)
    return (
        values == other_values
        and tensors.keys() == others.keys()
        and all(torch.equal(tensors[k], others[k]) for k in tensors)
    )
