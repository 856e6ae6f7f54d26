"""Which images make each batch, and who reads them."""

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sslkit.checks.failures import failure_in
from sslkit.checks.outputs import check_prepared, stack_prepared
from sslkit.clock import Clock
from sslkit.contracts import ImageSource, ViewMaker
from sslkit.data.order import permuted
from sslkit.data.substitution import naming, read_or_substitute
from sslkit.data.workers import Workers
from sslkit.errors import SSLKitError, UnreadableImage

MAX_WORKERS = 8


@dataclass(frozen=True)
class Batch:
    """This process's share of a step's images.

    Args:
        prepared: what the view maker prepared, each stacked to (B, ...).
        keys: (B,) int64 sample keys.
        unreadable: the images that were substituted.
    """

    prepared: tuple[Tensor, ...]
    keys: Tensor
    unreadable: Sequence[UnreadableImage]

    def pin_memory(self) -> "Batch":
        """Return this batch in page-locked memory; torch's loader asks for it by this name."""
        return Batch(tuple(tensor.pin_memory() for tensor in self.prepared), self.keys, self.unreadable)


class StepBatches(Dataset[Batch]):
    """The batch of each step of a run, a pure function of the step: so a run resumes anywhere.

    Process r of n takes the r-th contiguous slice of each global batch.

    Args:
        source: where images come from.
        views: prepares each image.
        clock: how many steps an epoch has.
        batch_size: images a step over all processes, divisible by ``world_size``.
        seed: of order and views.
        rank: this process.
        world_size: processes that share each batch.
    """

    def __init__(
        self,
        source: ImageSource,
        views: ViewMaker,
        clock: Clock,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.source = source
        self.views = views
        self.clock = clock
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.share = batch_size // world_size

    def __len__(self) -> int:
        return self.clock.total_steps

    def indices(self, step: int) -> Sequence[int]:
        """Return the images of a step that fall to this process."""
        start = (step % self.clock.steps_per_epoch) * self.batch_size + self.rank * self.share
        epoch = self.clock.at(step).epoch
        return permuted(range(start, start + self.share), len(self.source), self.seed, epoch).tolist()

    def try_first_image(self) -> None:
        """Make the views of the first image of the run.

        Raises:
            DataError: it cannot be read and no other in its place, or the views cannot use it.
        """
        index = self.indices(0)[0]
        sample, errors = read_or_substitute(self.source, index)
        with naming(self.source, (index + len(errors)) % len(self.source)):
            self.views([sample.image], [sample.key], epoch=0, seed=self.seed)

    def __getitem__(self, step: int) -> Batch:
        return self.read(step)

    def read(self, step: int, stopped: Callable[[], bool] = lambda: False) -> Batch:
        """Return the batch of a step.

        Args:
            step: counted from 0.
            stopped: asked before each image whether anyone still wants the batch.

        Raises:
            SSLKitError: too many images cannot be read, the views cannot use one, or nobody wants them.
        """
        epoch = self.clock.at(step).epoch
        prepared, keys, unreadable = [], [], []
        for index in self.indices(step):
            if stopped():
                raise SSLKitError(f"step {step} is not wanted any more")
            sample, errors = read_or_substitute(self.source, index)
            with naming(self.source, (index + len(errors)) % len(self.source)):
                prepared.append(check_prepared(self.views, self.views.prepare(sample, epoch, self.seed)))
            keys.append(sample.key)
            unreadable.extend(errors)
        stacked = tuple(stack_prepared(self.views, tensors) for tensors in zip(*prepared, strict=True))
        return Batch(stacked, torch.tensor(keys), unreadable)


def load_batches(
    batches: StepBatches, first_step: int, num_workers: int, pin_memory: bool = False
) -> Generator[tuple[int, Batch], None, None]:
    """Yield (step, batch) from ``first_step`` to the run's end, read ahead by ``num_workers`` processes.

    The processes end with the generator: close it.

    Raises:
        SSLKitError: as `StepBatches.read` raises it, wherever the batch was read.
        LostWorker: a process was killed or stopped.
    """
    steps, workers = range(first_step, len(batches)), Workers(num_workers)
    loader = DataLoader(
        _Reading(batches, workers),
        batch_size=None,
        sampler=steps,
        pin_memory=pin_memory,
        prefetch_factor=2 if num_workers else None,
        **workers.options,
    )
    with closing(workers.load(loader)) as loaded:
        for step, batch in zip(steps, loaded, strict=True):
            if isinstance(batch, SSLKitError):
                raise batch
            yield step, batch


class _Reading(Dataset["Batch | SSLKitError"]):
    """The batches as a worker hands them over: an error is a value, since torch adds its traceback to one raised.

    Args:
        batches: what to read.
        workers: say when nobody wants a batch any more.
    """

    def __init__(self, batches: StepBatches, workers: Workers) -> None:
        self.batches, self.workers = batches, workers

    def __getitem__(self, step: int) -> Batch | SSLKitError:
        try:
            return self.batches.read(step, self.workers.is_stopped)
        except SSLKitError as error:
            return error
        except (Exception, SystemExit) as error:
            # Here, where the traceback leads into the component; a worker would send it as text.
            if failure := failure_in(error):
                return failure
            raise


def default_workers(source: ImageSource, world_size: int = 1, views: ViewMaker | None = None) -> int:
    """Return how many processes should read: none for images in memory, else the cores that training leaves.

    Args:
        source: where images come from.
        world_size: training processes that share the machine.
        views: what the workers prepare of each image; images in memory need workers where that takes time. None
            prepares nothing.
    """
    if source.in_memory and (views is None or views.prepares_cheaply):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // world_size - 1, MAX_WORKERS))
