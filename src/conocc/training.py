"""The one training loop and the one scoring loop.

A method hands `train` a list of stages; every stage that a method of this package needs (the
alternating schedule, pretraining, two networks that play against each other) is a few optimisers,
each with a loss of its own. A run that is killed goes on from its checkpoint, the state at the end
of an epoch, with the numbers that it would have had.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer
from torch.overrides import TorchFunctionMode

from conocc.io.progress import bar
from conocc.io.safetensors import below, read, write
from conocc.io.words import count, duration, readable

logger = logging.getLogger("conocc")

TIMED_S = 0.5  # of training, by which all of it is foretold
SAVE_EVERY_S = 60.0  # at most so often, and only at the end of an epoch
# Matrix products of another height can round differently, so that the score of an image would
# hang on how many came with it: all blocks are padded to this one height.
BLOCK = 64

# One pass over each parameter instead of a dozen.
adam = functools.partial(Adam, fused=True)

Row = dict[str, Any]  # of the history
Terms = Mapping[str, Tensor]
Loss = Callable[[Tensor, int], tuple[Tensor, Terms]]

# What draws when called from Python, and takes a generator.
DRAWS = {
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.rand_like, torch.randn_like),
    *(Tensor.uniform_, Tensor.normal_, Tensor.bernoulli_, nn.init.uniform_, nn.init.normal_),
    *(nn.init.kaiming_uniform_, nn.init.kaiming_normal_, nn.init.xavier_uniform_),
}


class Chance(TorchFunctionMode):
    """Within ``with``, all that torch draws in this thread comes from generators of its own.

    So a fit does not move the generators of its caller, nor hang on what other threads draw. Of
    the same seed it draws what torch's global generator would after ``torch.manual_seed``.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        super().__init__()
        self.seed = seed
        self.generators = {
            where.type: torch.Generator(where).manual_seed(seed)
            for where in (torch.device("cpu"), device)
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func in DRAWS:
            like = kwargs.get("tensor", args[0] if args else None)
            given = like.device if isinstance(like, Tensor) else kwargs.get("device") or "cpu"
            kwargs = {**kwargs, "generator": self.generators.get(torch.device(given).type)}
        return func(*args, **kwargs)

    def _dropout(self, x: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
        """Compute torch's own dropout, which takes no generator."""
        if not training:
            return x
        kept = torch.empty_like(x).bernoulli_(1 - p, generator=self.generators[x.device.type])
        return x * kept.div_(1 - p)


@dataclass(frozen=True)
class Batches:
    """Rows of an array of images or vectors, in normalised float32 batches on a device.

    Only what is asked for is ever cast or copied, so that `array` may be a memory map. `chance` is
    that of the fit that learns from them: the order of the images in an epoch is a function of its
    seed, and all else is drawn ``with X.chance`` (`train` sees to it for a loss).
    """

    array: np.ndarray
    normalize: Callable[[Tensor], Tensor]
    device: torch.device
    chance: Chance
    rows: np.ndarray | None = None  # all of them

    def __len__(self) -> int:
        return len(self.array if self.rows is None else self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image (c, h, w) or vector (d,)."""
        return self.array.shape[1:]

    def __getitem__(self, index: slice | np.ndarray) -> Tensor:
        rows = self.array[index if self.rows is None else self.rows[index]]
        # float64 stays until it is normalised: 1e9 + noise would lose the noise in float32.
        is_double = rows.dtype.kind == "f" and rows.dtype.itemsize >= 8  # in any order of bytes
        dtype = np.float64 if is_double else np.float32
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
    """Yield ``function(block)`` for all blocks of `X`, without gradients: the one scoring loop."""
    keep_pages()
    for block, n in X.blocks():
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
    epochs
        How often the stage sees all images.
    steps
        For each batch, each loss is computed in turn and its optimiser takes a step. A loss
        takes the batch and the epoch (from 0) and gives what is descended, and its terms by name,
        each a batch mean, which stand in the history (`summed`).
    before_epoch
        Called with the epoch before it starts.
    """

    name: str
    modules: Mapping[str, nn.Module]
    epochs: int
    steps: Mapping[str, tuple[Optimizer, Loss]]
    before_epoch: Callable[[int], None] = lambda epoch: None


def summed(terms: Terms) -> tuple[Tensor, Terms]:
    """Give a loss that is the sum of its terms."""
    return torch.stack(list(terms.values())).sum(), terms


class Train(Protocol):
    """`train` with all but the method's own filled in, as its ``_fit`` gets it."""

    def __call__(self, stages: Sequence[Stage], *, batch_size: int) -> list[Row]: ...


def train(
    stages: Sequence[Stage],
    X: Batches,
    *,
    batch_size: int,
    checkpoint: Checkpoint | None = None,
    verbose: int = 0,
) -> list[Row]:
    """Run the stages, one after the other, and return the history: one row an epoch.

    A checkpoint is written at the end of an epoch, at most once in `SAVE_EVERY_S`.
    """
    keep_pages()
    plan = [(i, epoch) for i, stage in enumerate(stages) for epoch in range(stage.epochs)]
    history = checkpoint.restore(stages, X.chance) if checkpoint else []
    saved, first, begun = time.monotonic(), len(history) + 1, 0.0
    with bar("Training", len(plan), verbose=verbose, done=len(history)) as advance:
        for i, epoch in plan[len(history) :]:
            order = np.random.default_rng([X.chance.seed, i, epoch]).permutation(len(X))
            history.append(_epoch(stages[i], epoch, X, order, batch_size))
            terms = [f"{k} {readable(v)}" for k, v in list(history[-1].items())[2:]]
            advance(state=f"{stages[i].name}: {', '.join(terms)}")
            timed = len(history) - first  # but for the first epoch, which warms up
            if timed == 0:
                begun = time.monotonic()
            elif verbose and begun and (spent := time.monotonic() - begun) > TIMED_S:
                left = duration(spent / timed * len(plan[first:]))
                images, epochs = count(len(X), "image"), count(len(plan), "epoch")
                logger.info("%s, %s: about %s.", images, epochs, left)
                begun = 0.0
            if checkpoint and time.monotonic() - saved >= SAVE_EVERY_S:
                checkpoint.save(stages, history, X.chance)
                saved = time.monotonic()
    return history


def _epoch(stage: Stage, epoch: int, X: Batches, order: np.ndarray, batch_size: int) -> Row:
    """Train on all images, in an order, and give the row of the history."""
    stage.before_epoch(epoch)
    for module in stage.modules.values():
        module.train()
    sums: dict[str, Tensor | float] = {}
    for start in range(0, len(X), batch_size):
        batch = X[order[start : start + batch_size]]
        for optimizer, loss in stage.steps.values():
            for term, value in _step(optimizer, loss, batch, epoch, X.chance).items():
                sums[term] = sums.get(term, 0.0) + value.detach().double() * len(batch)
    means = {term: float(total) / len(X) for term, total in sums.items()}
    for term, mean in means.items():
        if not np.isfinite(mean):
            raise ValueError(
                f"Training failed in epoch {epoch + 1} of stage {stage.name!r}: the loss term "
                f"{term!r} is {mean}. Lower the learning rate, or look at the images' range."
            )
    return {"stage": stage.name, "epoch": epoch + 1, **means}


def _step(optimizer: Optimizer, loss: Loss, batch: Tensor, epoch: int, chance: Chance) -> Terms:
    optimizer.zero_grad(set_to_none=True)
    with chance:
        total, terms = loss(batch, epoch)
    total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    optimizer.step()
    return terms


@functools.cache
def keep_pages() -> None:
    """Have glibc keep freed memory for the next step instead of handing it back to the system.

    Each training step frees and takes the same large blocks; returning them costs a page fault
    for every 4 KiB. Measured once: 1.4 to 1.6 times the speed. It holds for the process.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


@contextmanager
def default_settings(device: torch.device) -> Iterator[None]:
    """Compute as torch does for a caller who has changed none of its settings, the same twice.

    That is with gradients, without autocast, inference mode or another default device: these
    belong to the thread, and are the caller's again after the block, as the number of threads is.

    Raises
    ------
    ValueError
        If the default dtype is not float32. It holds for all threads, so it is not changed here.
    """
    if torch.get_default_dtype() != torch.float32:
        raise ValueError(
            f"torch's default dtype is {torch.get_default_dtype()}, and conocc computes with "
            "torch.float32. Call torch.set_default_dtype(torch.float32) before it."
        )
    cpu, threads = torch.device("cpu"), torch.get_num_threads()
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
            torch.autocast(device.type, enabled=False),
            # What is not said here is set to a default of its own: off, and of ten bits.
            torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
            # Entered only where it is needed: it costs each of torch's functions some time.
            cpu if torch.get_default_device() != cpu else nullcontext(),
        ):
            yield
    finally:
        torch.set_num_threads(threads)


# --- checkpoints -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    """One file from which a killed fit goes on.

    Attributes
    ----------
    path
        A safetensors file: modules with their buffers, states of the optimisers and of what
        chance comes from; in its header, as JSON, the history, the threads and the identity.
    identity
        What must be equal for the numbers to be the same, as JSON gives it back: class,
        parameters, seed, data.
    """

    path: Path
    identity: Mapping[str, Any]

    def save(self, stages: Sequence[Stage], history: list[Row], chance: Chance) -> None:
        """Write the state at the end of the history's last epoch, whole or not at all."""
        tensors = {f"generator/{k}": v.get_state() for k, v in chance.generators.items()}
        for name, module in _modules(stages).items():
            tensors |= {f"modules/{name}/{k}": v for k, v in module.state_dict().items()}
        for name, optimizer in _optimizers(stages).items():
            for i, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizers/{name}/{i}/{k}": v for k, v in state.items()}
        header = {"history": history, "threads": torch.get_num_threads(), "identity": self.identity}
        write(self.path, "checkpoint", header, tensors)

    def restore(self, stages: Sequence[Stage], chance: Chance) -> list[Row]:
        """Load what `save` wrote, in place, and give the history; without a file, an empty one.

        Raises
        ------
        ValueError
            If the file is damaged, of a newer format, or of another fit.
        """
        if not self.path.exists():
            return []
        try:
            header, tensors = read(self.path, "checkpoint")
        except ValueError as error:
            raise ValueError(f"{error} Delete it to start afresh.") from error
        was, now = header["identity"], self.identity
        if changed := [k for k in sorted({*was, *now}) if was.get(k) != now.get(k)]:
            changes = "; ".join(f"{k} was {was.get(k)!r}, is {now.get(k)!r}" for k in changed)
            raise ValueError(
                f"Checkpoint '{self.path}' belongs to another fit: {changes}. "
                "Give another path, or delete it."
            )
        history: list[Row] = header["history"]
        # Threads change the order of sums, and with it the last bits.
        torch.set_num_threads(header["threads"])
        for name, module in _modules(stages).items():
            module.load_state_dict(below(tensors, f"modules/{name}/"))
        for name, optimizer in _optimizers(stages).items():
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for key, value in below(tensors, f"optimizers/{name}/").items():
                i, what = key.split("/")
                p = parameters[int(i)]
                # The fused step goes through memory, in which all must lie like the parameter.
                like = torch.empty_like(p if value.shape == p.shape else value, device=p.device)
                optimizer.state[p][what] = like.copy_(value)
        for name, state in below(tensors, "generator/").items():
            chance.generators[name].set_state(state)
        logger.info("Going on from %s, after %d epochs.", self.path.name, len(history))
        return history


def _modules(stages: Sequence[Stage]) -> dict[str, nn.Module]:
    return {name: module for stage in stages for name, module in stage.modules.items()}


def _optimizers(stages: Sequence[Stage]) -> dict[str, Optimizer]:
    return {f"{s.name}/{name}": step[0] for s in stages for name, step in s.steps.items()}
