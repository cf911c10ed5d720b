"""The one training loop and the one scoring loop.

A method hands `train` a list of stages; every stage that a method of this package needs (the
alternating schedule, pretraining, two networks that play against each other) is a list of
optimisers with one loss each. A run that is killed goes on from its checkpoint with the numbers
that it would have had.
"""

from __future__ import annotations

import ctypes
import functools
import json
import logging
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from conocc.io.progress import Advance, bar
from conocc.io.safetensors import write_tensors

logger = logging.getLogger("conocc")

CHECKPOINT_FORMAT = 1
SAVE_EVERY_S = 60.0
# Matrix products of another height can round differently, so that the score of an image would
# hang on how many came with it: all blocks are padded to this one height.
BLOCK = 64

# One pass over each parameter instead of a dozen.
adam = functools.partial(torch.optim.Adam, fused=True)

Terms = Mapping[str, Tensor]
Loss = Callable[[Tensor, int], Terms]


@dataclass(frozen=True)
class Batches:
    """An array of images or vectors, given out in normalised float32 batches on a device.

    Only what is asked for is ever cast or copied, so that `array` may be a memory map.
    """

    array: np.ndarray
    normalize: Callable[[Tensor], Tensor]
    device: torch.device

    def __len__(self) -> int:
        return len(self.array)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image (c, h, w) or vector (d,)."""
        return self.array.shape[1:]

    def __getitem__(self, index: slice | np.ndarray) -> Tensor:
        rows = self.array[index]
        # float64 stays until it is normalised: 1e9 + noise would lose the noise in float32.
        dtype = np.float64 if rows.dtype == np.float64 else np.float32
        batch = torch.from_numpy(np.array(rows, dtype=dtype)).to(self.device)
        return self.normalize(batch).float()

    def blocks(self) -> Iterator[tuple[Tensor, int]]:
        """Yield all of it in order, `BLOCK` rows at a time, and how many of the rows count."""
        for start in range(0, len(self), BLOCK):
            batch = self[slice(start, start + BLOCK)]
            n = len(batch)
            if n < BLOCK:
                batch = torch.cat([batch, batch[:1].expand(BLOCK - n, *batch.shape[1:])])
            yield batch, n


def apply(function: Callable[[Tensor], Tensor], X: Batches) -> Iterator[Tensor]:
    """Yield ``function(block)`` for all blocks of `X`, without gradients: the one scoring loop.

    Within `train`, before an epoch, it ends at the first block after Ctrl-C.
    """
    keep_pages()
    for block, n in X.blocks():
        if _signals and threading.current_thread() is threading.main_thread():
            raise _StoppedBeforeAnEpoch
        with torch.no_grad():
            rows = function(block)[:n]
        yield rows


def concatenated(blocks: Iterable[Tensor], n: int) -> Tensor:
    """Copy blocks of rows (·, ...) into one tensor (n, ...), on the CPU, as they come.

    Kept one by one, the small blocks would lie scattered among the large ones that are freed
    around them, and hold that memory: 12 KiB for each image of 64 pixels a side, measured.
    """
    out, start = torch.empty(0), 0
    for block in blocks:
        if start == 0:
            out = torch.empty((n, *block.shape[1:]), dtype=block.dtype)
        out[start : start + len(block)] = block
        start += len(block)
    return out


@dataclass(frozen=True)
class Stage:
    """Some epochs of training.

    Attributes
    ----------
    name
        What the progress bar, the history and the checkpoint call it.
    modules
        All that the stage changes, by name, buffers included; one name is one module over all
        stages of a fit.
    optimizers, losses
        For each batch, each loss is computed in turn and its optimiser takes a step. A loss
        takes the batch and the epoch (from 0) and gives its terms by name, each a batch mean;
        their sum is descended and each of them stands in the history.
    epochs
        How often the stage sees all images.
    before_epoch
        Called with the epoch before it starts.
    """

    name: str
    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]
    losses: Mapping[str, Loss]
    epochs: int
    before_epoch: Callable[[int], None] = lambda epoch: None


@dataclass
class _Position:
    """Where training stands: `step` batches into `epoch` of `stage`."""

    stage: int = 0
    epoch: int = 0
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


class Train(Protocol):
    """`train` with all but the stages filled in, as a method's ``_fit`` gets it."""

    def __call__(self, stages: Sequence[Stage]) -> list[dict[str, Any]]: ...


def train(
    stages: Sequence[Stage],
    X: Batches,
    *,
    batch_size: int,
    checkpoint: Checkpoint | None = None,
    verbose: int = 0,
) -> list[dict[str, Any]]:
    """Run the stages, one after the other, and return the history: one row an epoch.

    The order of the images is a function of the seed, the stage and the epoch. Whatever else is
    drawn (noise, dropout) comes from torch's own generator, which the caller seeds and guards.
    """
    keep_pages()
    at = checkpoint.restore(stages) if checkpoint else _Position()
    total = sum(stage.epochs for stage in stages)
    done = sum(stage.epochs for stage in stages[: at.stage]) + at.epoch
    saved = time.monotonic()
    with _caught() as caught, bar("Training", total, verbose=verbose, done=done) as advance:
        try:
            for _ in _steps(stages, X, batch_size, at, advance):
                due = time.monotonic() - saved >= SAVE_EVERY_S
                if checkpoint and (due or caught):
                    checkpoint.save(stages, at)
                    saved = time.monotonic()
                if caught:
                    break
        except _StoppedBeforeAnEpoch:
            if checkpoint:
                checkpoint.save(stages, at)
    if caught:
        number = caught[0]
        caught.clear()
        _stop(number, stages, at, checkpoint)
    return at.history


def _steps(
    stages: Sequence[Stage], X: Batches, batch_size: int, at: _Position, advance: Advance
) -> Iterator[None]:
    """Train from `at` to the end, pausing after each batch."""
    while at.stage < len(stages):
        stage = stages[at.stage]
        while at.epoch < stage.epochs:
            yield from _epoch(stage, X, batch_size, at)
            at.history.append(_row(stage, at, len(X)))
            advance(state=_state(at.history[-1]))
            at.epoch, at.step, at.sums = at.epoch + 1, 0, {}
        at.stage, at.epoch = at.stage + 1, 0


def _epoch(stage: Stage, X: Batches, batch_size: int, at: _Position) -> Iterator[None]:
    """Train on the batches of an epoch that are left, pausing after each."""
    if at.step == 0:
        stage.before_epoch(at.epoch)
    for module in stage.modules.values():
        module.train()
    order = np.random.default_rng([torch.initial_seed(), at.stage, at.epoch]).permutation(len(X))
    for start in range(at.step * batch_size, len(X), batch_size):
        batch = X[order[start : start + batch_size]]
        for name, loss in stage.losses.items():
            terms = _step(stage.optimizers[name], loss, batch, at.epoch)
            for term, value in terms.items():
                weighted = value.detach().double() * len(batch)
                at.sums[term] = at.sums[term] + weighted if term in at.sums else weighted
        at.step += 1
        yield


def _step(optimizer: torch.optim.Optimizer, loss: Loss, batch: Tensor, epoch: int) -> Terms:
    optimizer.zero_grad(set_to_none=True)
    terms = loss(batch, epoch)
    total = torch.stack(list(terms.values())).sum()
    total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    optimizer.step()
    return terms


def _row(stage: Stage, at: _Position, n: int) -> dict[str, Any]:
    means = {term: float(total) / n for term, total in at.sums.items()}
    for term, value in means.items():
        if not np.isfinite(value):
            raise ValueError(
                f"Training failed in epoch {at.epoch + 1} of stage {stage.name!r}: the loss term "
                f"{term!r} is {value}. Lower the learning rate, or look at the images' range."
            )
    return {"stage": stage.name, "epoch": at.epoch + 1, **means}


def _state(row: Mapping[str, Any]) -> str:
    terms = [f"{k} {v:.4g}" for k, v in row.items() if k not in {"stage", "epoch"}]
    return f"{row['stage']}: {', '.join(terms)}"


@functools.cache
def keep_pages() -> None:
    """Have glibc keep freed memory for the next step instead of handing it back to the system.

    Each training step frees and takes the same large blocks; returning them costs a page fault
    for every 4 KiB. Measured once: 1.4 to 1.6 times the speed. It holds for the process.
    """
    if platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)


class _StoppedBeforeAnEpoch(BaseException):
    """A signal came while all images were looked at, of which the epoch will look again."""


_signals: list[int] = []  # that the `train` of the main thread has received


@contextmanager
def _caught() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying of them, where Python lets us."""
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {s: signal.signal(s, lambda number, _: _signals.append(number)) for s in signals}
    try:
        yield _signals
    except BaseException:
        _signals.clear()
        raise
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def _stop(
    number: int, stages: Sequence[Stage], at: _Position, checkpoint: Checkpoint | None
) -> None:
    """Say where training stopped, then let the signal do what it would have done."""
    where = f"epoch {at.epoch + 1} of {stages[at.stage].epochs}"
    kept = f"saved in {checkpoint.path.name!r}" if checkpoint else "nothing is kept"
    logger.warning("%s in %s: %s.", signal.Signals(number).name, where, kept)
    signal.raise_signal(number)
    raise KeyboardInterrupt  # where the caller ignores the signal, this fit is unfinished still


# --- checkpoints -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    """One file from which a killed fit goes on.

    Attributes
    ----------
    path
        A safetensors file: modules with their buffers, optimiser and generator states; in its
        header, as JSON, the position, the history, the threads and the identity.
    identity
        What must be equal for the numbers to be the same: class, parameters, seed, data.
    """

    path: Path
    identity: Mapping[str, Any]

    def save(self, stages: Sequence[Stage], at: _Position) -> None:
        """Write the state of the stages at a position, whole or not at all."""
        stage = stages[at.stage]
        tensors = {f"sums/{term}": value for term, value in at.sums.items()}
        tensors |= {f"generator/{name}": value for name, value in _generators().items()}
        for name, module in _modules(stages).items():
            tensors |= {f"modules/{name}/{k}": v for k, v in module.state_dict().items()}
        for name, optimizer in stage.optimizers.items():
            for i, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizers/{name}/{i}/{k}": v for k, v in state.items()}
        header = {
            "format": CHECKPOINT_FORMAT,
            "identity": self.identity,
            "position": [at.stage, at.epoch, at.step],
            "history": at.history,
            "threads": torch.get_num_threads(),
        }
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        write_tensors(self.path, header, tensors)

    def restore(self, stages: Sequence[Stage]) -> _Position:
        """Load what `save` wrote into the stages, in place; without a file, start afresh.

        Raises
        ------
        ValueError
            If the file is damaged, of a newer format, or of another fit.
        """
        if not self.path.exists():
            return _Position()
        header, tensors = self._read()
        self._check(header)
        stage, epoch, step = header["position"]
        # Threads change the order of sums, and with it the last bits.
        torch.set_num_threads(header["threads"])
        for name, module in _modules(stages).items():
            module.load_state_dict(_below(tensors, f"modules/{name}/"))
        for name, optimizer in stages[stage].optimizers.items():
            _load_optimizer(optimizer, _below(tensors, f"optimizers/{name}/"))
        _set_generators(_below(tensors, "generator/"))
        logger.info("Going on from %s, epoch %d.", self.path.name, epoch + 1)
        sums = {term: value for term, value in _below(tensors, "sums/").items()}
        return _Position(stage, epoch, step, sums, header["history"])

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        try:
            with safe_open(self.path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["conocc"])
                return header, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise ValueError(
                f"Cannot read checkpoint '{self.path}': {error}. Delete it to start afresh."
            ) from error

    def _check(self, header: Mapping[str, Any]) -> None:
        if header.get("format") != CHECKPOINT_FORMAT:
            raise ValueError(
                f"Cannot read checkpoint '{self.path}': its format is {header.get('format')}, "
                f"this version of conocc reads {CHECKPOINT_FORMAT}."
            )
        was, now = header["identity"], json.loads(json.dumps(self.identity))
        if was != now:
            changes = "; ".join(
                f"{key} was {was.get(key)!r}, is {now.get(key)!r}"
                for key in sorted({*was, *now})
                if was.get(key) != now.get(key)
            )
            raise ValueError(
                f"Checkpoint '{self.path}' belongs to another fit: {changes}. "
                "Give another path, or delete it."
            )


def _modules(stages: Sequence[Stage]) -> dict[str, nn.Module]:
    return {name: module for stage in stages for name, module in stage.modules.items()}


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in tensors.items():
        i, name = key.split("/")
        parameter = parameters[int(i)]
        # The fused step goes through memory, in which all must lie like the parameter.
        alike = torch.empty_like(parameter) if value.shape == parameter.shape else value
        state.setdefault(int(i), {})[name] = alike.detach().copy_(value)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _generators() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_generators(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


@contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch inside the block, and leave the caller's generators and threads as they were."""
    threads = torch.get_num_threads()
    cuda: Iterable[torch.device] = [device] if device.type == "cuda" else []
    try:
        with (
            torch.random.fork_rng(devices=cuda),
            torch.backends.cudnn.flags(deterministic=True, benchmark=False),
        ):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
