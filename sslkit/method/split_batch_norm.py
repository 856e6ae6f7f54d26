"""A batch norm over a few images at a time."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from sslkit.errors import RecipeError


class SplitBatchNorm(_BatchNorm):
    """A batch norm that, in training, normalises groups of images, each by its own statistics.

    Running statistics move by the mean over groups. Parameters, buffers and their names are those of the batch norm
    that it replaces, and so are the dropout and activation that timm joins to some.

    Args:
        norm: what it replaces.
        num_images: images in a group.
        spread: whether a group's images are as far apart in the batch as can be, rather than neighbours.

    Raises:
        RecipeError: the batch norm has no running statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: _BatchNorm, num_images: int, spread: bool = False) -> None:
        super().__init__(norm.num_features)
        vars(self).update(vars(norm))
        if self.running_mean is None:
            raise RecipeError("method.batch_norm: a batch norm without running statistics cannot be split")
        self.num_images, self.spread = num_images, spread

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, ...).

        Raises:
            RecipeError: in training, N is not a multiple of the group.
        """
        output = self._in_groups(input) if self.training else super().forward(input)
        for joined in self.children():
            output = joined(output)
        return output

    def _in_groups(self, input: Tensor) -> Tensor:
        if len(input) % self.num_images:
            raise RecipeError(f"method.batch_norm: {len(input)} images do not divide into groups of {self.num_images}")
        num_groups = len(input) // self.num_images
        groups = (_every(num_groups, input) if self.spread else input).split(self.num_images)
        means, variances = self.running_mean.new_zeros(2, num_groups, self.num_features)
        # With a momentum of 1, what torch takes for running statistics become the group's own.
        normalised = [
            F.batch_norm(group, mean, variance, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps)
            for group, mean, variance in zip(groups, means, variances, strict=True)
        ]
        self._track(means.mean(0), variances.mean(0))
        return _every(self.num_images, torch.cat(normalised)) if self.spread else torch.cat(normalised)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        """Let any (N, C, ...) pass."""


def _every(step: int, rows: Tensor) -> Tensor:
    """Return rows 0, step, 2 step, ..., 1, step + 1, ...; ``_every(len(rows) // step)`` takes it back."""
    return rows[torch.arange(len(rows), device=rows.device).view(-1, step).T.flatten()]
