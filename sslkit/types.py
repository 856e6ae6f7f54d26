"""The types that components exchange.

Letters, here and everywhere: B images · V views · S/T student/teacher views · F features · D embedding ·
K prototypes · Q queue · C, H, W channels, height, width · P patches.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sslkit.errors import RecipeError

ViewChoice = Literal["all", "globals"] | list[int]
"""Which views a network sees: all, the global ones, or a list of view ids."""

TargetKind = Literal["probabilities", "embedding", "logits"]
"""What a loss compares: distributions over prototypes, embeddings, or logits as they are."""


@dataclass(frozen=True)
class Sample:
    """One image as its source gives it.

    Args:
        image: (C, H, W) in its own dtype (uint8, uint16, float32).
        key: a stable 64-bit number; the same image has the same key in every run, batch and process.
        label: its class, if it has one.
        mask: (H, W) of its objects, if known.
    """

    image: Tensor
    key: int
    label: int | None = None
    mask: Tensor | None = None


class ViewGroup(NamedTuple):
    """The views of one resolution: images (V, B, C, H, W) and one id a view."""

    images: Tensor
    view_ids: tuple[int, ...]


@dataclass(frozen=True)
class Views:
    """The views of a batch, grouped by resolution; ids 0 .. num_globals - 1 are the global views and come first.

    Raises:
        ValueError: a group that is not floating (V, B, C, H, W) with an id a view, an id given twice, or unequal B.
    """

    groups: tuple[ViewGroup, ...]
    num_globals: int = 2

    def __post_init__(self) -> None:
        for images, ids in self.groups:
            if images.ndim != 5 or len(images) != len(ids) or not images.is_floating_point():
                raise ValueError(
                    "the images of a ViewGroup are normalised floating (V, B, C, H, W) with V view ids, not "
                    f"{images.dtype} {tuple(images.shape)} with {tuple(ids)}; Views.of makes groups of crops "
                    "(B, C, H, W), MultiCrop of images"
                )
        if len({images.shape[1] for images, _ in self.groups}) > 1 or len({*self.view_ids}) < len(self.view_ids):
            shapes = ", ".join(f"{tuple(group.view_ids)}: {group.images.shape[1]} images" for group in self.groups)
            raise ValueError(f"every view has its own id and shows the same images, unlike {shapes}")

    @staticmethod
    def of(crops: Iterable[Tensor], num_globals: int = 2) -> "Views":
        """Return the views that crops (B, C, H, W) of one batch of images are, numbered as they come.

        Args:
            crops: normalised, one a view, the global views first.
            num_globals: how many are global.
        """
        groups: list[ViewGroup] = []
        # Neighbours of one size are one group, which passes the backbone at once.
        for _, alike in groupby(enumerate(crops), lambda numbered: numbered[1].shape[-2:]):
            ids, images = zip(*alike)
            groups.append(ViewGroup(torch.stack(images), ids))
        return Views(tuple(groups), num_globals)

    @property
    def view_ids(self) -> tuple[int, ...]:
        """The ids in the order of a branch's outputs."""
        return tuple(view_id for group in self.groups for view_id in group.view_ids)

    @property
    def batch_size(self) -> int:
        """Images in this batch, B."""
        return self.groups[0].images.shape[1]

    def choose(self, choice: ViewChoice) -> tuple[int, ...]:
        """Return the ids that a choice means here."""
        return resolve_view_ids(choice, self.view_ids, self.num_globals)

    def select(self, view_ids: Sequence[int]) -> "Views":
        """Return these views alone, still grouped by resolution."""
        groups = []
        for images, ids in self.groups:
            kept = [i for i, view_id in enumerate(ids) if view_id in view_ids]
            if len(kept) == len(ids):
                groups.append(ViewGroup(images, ids))
            elif kept:
                groups.append(ViewGroup(entries(images, kept), tuple(ids[i] for i in kept)))
        return replace(self, groups=tuple(groups))

    def narrow(self, start: int, stop: int) -> "Views":
        """Return the images start .. stop - 1 of the batch, in every view."""
        return replace(self, groups=tuple(ViewGroup(g.images[:, start:stop], g.view_ids) for g in self.groups))


@dataclass(frozen=True)
class Features:
    """Features of a backbone: cls (N, F), one vector an image, and patches (N, P, F) where it has them."""

    cls: Tensor
    patches: Tensor | None = None


@dataclass(frozen=True)
class Projection:
    """What a branch makes of a batch of views.

    Args:
        features: (V, B, F) of the backbone.
        projection: (V, B, D) of the projector, before predictor and normalisation.
        embedding: (V, B, D), l2-normalised where the head normalises.
        logits: (V, B, K) scores of the prototypes, or None without prototypes.
        view_ids: the view of each entry of the first axis.
        score: (..., D) embeddings to (..., K) logits with this branch's current prototypes, without gradient;
            None without prototypes.
    """

    features: Tensor
    projection: Tensor
    embedding: Tensor
    logits: Tensor | None
    view_ids: tuple[int, ...]
    score: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)

    @staticmethod
    def of(
        *,
        embedding: Tensor | None = None,
        logits: Tensor | None = None,
        view_ids: Sequence[int] | None = None,
        score: Callable[[Tensor], Tensor] | None = None,
    ) -> "Projection":
        """Return the outputs of a network that is no `Branch`, for a loss or a collapse operator used by itself.

        What is not given is empty: (V, B, 0), or None for logits.

        Args:
            embedding: (V, B, D), which `MSE`, `InfoNCE` and `NegativeQueue` read.
            logits: (V, B, K), which the others read.
            view_ids: the view of each entry of the first axis; None numbers them from 0.
            score: scores embeddings with the prototypes; the queue of `SinkhornKnopp` needs it.

        Raises:
            ValueError: neither is given, one has not three axes, or there is not an id a view.
        """
        given = [tensor for tensor in (embedding, logits) if tensor is not None]
        shapes = [tuple(tensor.shape) for tensor in given]
        if not given or any(len(shape) != 3 or shape[:2] != shapes[0][:2] for shape in shapes):
            raise ValueError(
                "a Projection is of an embedding (V, B, D), of logits (V, B, K) or of both, not of "
                f"{' and '.join(map(str, shapes)) or 'nothing'}"
            )
        num_views, batch_size, _ = shapes[0]
        ids = tuple(range(num_views) if view_ids is None else view_ids)
        if len(ids) != num_views:
            raise ValueError(f"a Projection of {num_views} views has as many view ids, not {ids}")
        empty = given[0].new_empty(num_views, batch_size, 0)
        return Projection(empty, empty, empty if embedding is None else embedding, logits, ids, score)

    def select(self, view_ids: Sequence[int]) -> "Projection":
        """Return the outputs for these views, in this order."""
        if tuple(view_ids) == self.view_ids:
            return self
        rows = [self.view_ids.index(view_id) for view_id in view_ids]
        return self._each(lambda tensor: entries(tensor, rows), tuple(view_ids))

    def detach(self) -> "Projection":
        """Return the same outputs without gradient."""
        return self._each(Tensor.detach, self.view_ids)

    def _each(self, change: Callable[[Tensor], Tensor], view_ids: tuple[int, ...]) -> "Projection":
        logits = None if self.logits is None else change(self.logits)
        return Projection(
            change(self.features),
            change(self.projection),
            change(self.embedding),
            logits,
            view_ids,
            self.score,
        )

    @staticmethod
    def join(parts: Sequence["Projection"]) -> "Projection":
        """Return one batch made of several, images in the order given."""
        first = parts[0]
        if len(parts) == 1:
            return first
        logits = None if first.logits is None else torch.cat([p.logits for p in parts if p.logits is not None], 1)
        return Projection(
            torch.cat([p.features for p in parts], 1),
            torch.cat([p.projection for p in parts], 1),
            torch.cat([p.embedding for p in parts], 1),
            logits,
            first.view_ids,
            first.score,
        )


@dataclass(frozen=True)
class Targets:
    """What the student must predict, one entry a teacher view. No gradient flows into them.

    Args:
        values: (T, B, K) or (T, B, D).
        kind: what the values are: ``probabilities`` over prototypes, or the teacher's ``embedding`` or
            ``logits``, to be matched as they are.
        view_ids: the teacher view of each entry of the first axis.
        negatives: (Q, D) embeddings of length 1 that no image of this batch should match, or None.
    """

    values: Tensor
    kind: TargetKind
    view_ids: tuple[int, ...]
    negatives: Tensor | None = None

    def narrow(self, start: int, stop: int) -> "Targets":
        """Return the targets of the images start .. stop - 1 of the batch."""
        return replace(self, values=self.values[:, start:stop])


def resolve_view_ids(choice: ViewChoice, view_ids: Sequence[int], num_globals: int) -> tuple[int, ...]:
    """Return the ids that a choice means where these views are made, the first ``num_globals`` of them global."""
    if choice == "all":
        return tuple(view_ids)
    if choice == "globals":
        return tuple(view_id for view_id in view_ids if view_id < num_globals)
    return tuple(choice)


def matching_pairs(teacher_ids: Sequence[int], student_ids: Sequence[int]) -> list[tuple[int, int]]:
    """Return the (teacher, student) positions that a loss compares: every pair of two different views.

    Raises:
        RecipeError: there is none.
    """
    pairs = [(t, s) for t, a in enumerate(teacher_ids) for s, b in enumerate(student_ids) if a != b]
    if not pairs:
        raise RecipeError(
            f"method.student_views {list(student_ids)} and method.teacher_views {list(teacher_ids)} hold no two "
            "different views to compare. Add one of\n  --method.student_views all --method.teacher_views globals\n"
            "  --views.num_local_views 6"
        )
    return pairs


def entries(tensor: Tensor, indices: Sequence[int]) -> Tensor:
    """Return ``tensor[indices]``; a list as an index would be carried to the tensor's device, which waits for it.

    Args:
        tensor: (V, ...).
        indices: entries of the first axis, not negative.
    """
    if not indices or list(indices) == list(range(indices[0], indices[0] + len(indices))):
        start = indices[0] if indices else 0
        return tensor[start : start + len(indices)]
    return torch.stack([tensor[i] for i in indices])


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return half-precision tensors as float32, wider ones as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def in_wider_dtype(state: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Return a state and what enters it in the wider of their dtypes, so that float64 inputs keep their precision."""
    dtype = torch.promote_types(state.dtype, new.dtype)
    return state.to(dtype), new.to(dtype)


def unit_length(vectors: Tensor) -> Tensor:
    """Return vectors (..., D) scaled to length 1, float32 or wider; one of length 0 stays so."""
    return F.normalize(at_least_float32(vectors), dim=-1)


@dataclass(frozen=True)
class LabelledImages:
    """Images in batches, for an evaluator: ``batches()`` yields images (B, C, H, W) and labels (B,) or None.

    Args:
        name: what the images are, for the record ("cifar10 test").
        batches: starts a pass over the images, always in the same order, ready for the backbone.
        num_images: images in a pass.
        num_classes: distinct classes, or None where there are no labels.
    """

    name: str
    batches: Callable[[], Iterator[tuple[Tensor, Tensor | None]]]
    num_images: int
    num_classes: int | None


@dataclass(frozen=True)
class EvaluationData:
    """The images of an evaluator: ``train`` to fit or to store, ``test`` to measure on."""

    train: LabelledImages
    test: LabelledImages


@dataclass(frozen=True)
class ImageFeatures:
    """Images as evaluators see them and their features, on the CPU.

    Args:
        images: (N, C, H, W), normalised.
        features: (N, F) of a backbone.
        labels: (N,), or None.
    """

    images: Tensor
    features: Tensor
    labels: Tensor | None


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """What a backbone must know of its images; travels with the run and its exports as data.json.

    Args:
        channels: bands.
        mean: of each band in 0..1.
        std: of each band.
        value_range: pixel values of 0 and 1, or None for the dtype's.
        size: side of the images that evaluators see, in pixels.
        resize: their shorter side before the central crop.
    """

    channels: int
    mean: Sequence[float]
    std: Sequence[float]
    value_range: Sequence[float] | None = None
    size: int = 224
    resize: int = 256
