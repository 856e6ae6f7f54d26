"""What a step says about its health: numbers for the log, computed only when a row is written."""

import torch
from torch import Tensor
from torch.nn import functional as F

from sslkit.checks.outputs import check_chance, check_log_probabilities
from sslkit.contracts import Loss
from sslkit.distributed import gather_over_processes, mean_over_processes
from sslkit.method.step import StepOutput
from sslkit.types import at_least_float32, matching_pairs, unit_length

FEWEST_IMAGES = 8
"""In a batch, for the number of directions of their embeddings."""


@torch.no_grad()
def diagnose(output: StepOutput, loss: Loss, costly: bool = True) -> dict[str, Tensor]:
    """Return the health of a step, each a scalar over all processes.

    Args:
        output: of the step.
        loss: that it minimised.
        costly: whether to say the effective rank too, for which singular values are computed.

    ===================== ============================ ==========================================================
    name                  range                        healthy
    ===================== ============================ ==========================================================
    loss_below_chance     any                          above 0: how far below that of a student that knows nothing
    embedding_std         0 .. 1                       well above 0; 0 when every image has one embedding
    image_cosine          -1 .. 1                      well below 1; 1 when the teacher has one embedding for all
    embedding_directions  1 .. min(B - 1, D)           above 2: along how many directions the teacher's embeddings vary
    effective_rank        1 .. min(T B, F)             far above 1 (RankMe, arXiv:2210.02885, of teacher features)
    teacher_student_cosine -1 .. 1                     rises, stays below 1
    target_entropy        0 .. ln K                    between; 0: one prototype takes all, ln K: uniform
    marginal_entropy      0 .. ln K                    near ln K: prototypes are used alike
    prototype_use         1 / K .. 1                   exp(marginal_entropy) / K
    student_entropy       0 .. ln K                    falls towards target_entropy
    target_kl             0 ..                         above 0: KL(targets || student), DINO figure 7
    ===================== ============================ ==========================================================

    The last five exist only where targets are probabilities over prototypes. Of fewer than 8 images, or one dimension,
    there is no number of directions: nan.
    """
    # What is no mean over images needs the images of all processes.
    student, teacher = (gather_over_processes(each.embedding, dim=1) for each in (output.student, output.teacher))
    numbers = {
        "embedding_std": embedding_std(student),
        "image_cosine": image_cosine(teacher),
        "embedding_directions": embedding_directions(teacher) if _can_vary(teacher) else teacher.new_tensor(torch.nan),
        "teacher_student_cosine": _cosine(output),
    }
    if costly:
        numbers["effective_rank"] = effective_rank(gather_over_processes(output.teacher.features, dim=1))
    if (chance := check_chance(loss, loss.chance(output.student, output.targets))) is not None:
        numbers["loss_below_chance"] = chance - output.loss
    if output.targets.kind == "probabilities":
        numbers |= _distributions(output, loss)
    return {name: mean_over_processes(value) for name, value in numbers.items()}


def embedding_std(embeddings: Tensor) -> Tensor:
    """Return the standard deviation over images of (V, B, D) embeddings, as a share of the most it could be.

    Embeddings spread evenly over the unit sphere have 1, identical ones 0.
    """
    unit = unit_length(embeddings)
    return unit.var(1, unbiased=False).sum(-1).mean().sqrt()


def image_cosine(embeddings: Tensor) -> Tensor:
    """Return the mean cosine between (V, B, D) embeddings of different images in the same view; nan for one image."""
    unit = unit_length(embeddings)
    images = unit.shape[1]
    return (unit.sum(1).square().sum(-1).mean() - images) / (images * (images - 1) or torch.nan)


def embedding_directions(embeddings: Tensor) -> Tensor:
    """Return how many directions (V, B, D) embeddings vary along, as the participation ratio of their variances.

    (sum of eigenvalues)^2 / sum of squared eigenvalues, of the covariance over images, mean over views: D where they
    vary alike along all, 1 where they lie on a line. It needs no eigenvalues: the sums are traces.
    """
    rows = at_least_float32(embeddings)
    rows = rows - rows.mean(1, keepdim=True)
    wide = rows.shape[1] < rows.shape[2]
    gram = rows @ rows.mT if wide else rows.mT @ rows
    spread = gram.square().sum((-2, -1))
    tiny = torch.finfo(spread.dtype).tiny
    return (gram.diagonal(dim1=-2, dim2=-1).sum(-1).square() / spread.clamp_min(tiny)).mean()


def _can_vary(embeddings: Tensor) -> bool:
    """Whether a number of directions says something about (V, B, D) embeddings: few images lie nearly on a line."""
    return embeddings.shape[1] >= FEWEST_IMAGES and embeddings.shape[2] > 1


def effective_rank(features: Tensor) -> Tensor:
    """Return exp of the entropy of the normalised singular values of (T, B, F) features.

    Views and images are rows alike; of more than 512 the first are taken, which bounds the cost. Features that are
    not finite have none: nan.
    """
    rows = at_least_float32(features).flatten(0, 1)[:512]
    finite = rows.isfinite().all()
    # Singular values of other rows would raise, and to ask before would be a wait for the device.
    values = torch.linalg.svdvals(torch.where(finite, rows, 0.0))
    rank = entropy(values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)).exp()
    return torch.where(finite, rank, torch.nan)


def entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy in nats along the last axis."""
    return -torch.xlogy(probabilities, probabilities).sum(-1)


def _cosine(output: StepOutput) -> Tensor:
    student, teacher = output.student, output.teacher
    pairs = matching_pairs(teacher.view_ids, student.view_ids)
    cosines = [F.cosine_similarity(student.projection[s], teacher.projection[t], dim=-1).mean() for t, s in pairs]
    return at_least_float32(torch.stack(cosines)).mean()


def _distributions(output: StepOutput, loss: Loss) -> dict[str, Tensor]:
    targets = output.targets
    pairs = matching_pairs(targets.view_ids, output.student.view_ids)
    of_targets = entropy(targets.values).mean(1)
    marginal = entropy(mean_over_processes(targets.values.mean((0, 1))))
    numbers = {
        "target_entropy": of_targets.mean(),
        "marginal_entropy": marginal,
        "prototype_use": marginal.exp() / targets.values.shape[-1],
    }
    log_student = check_log_probabilities(loss, loss.log_probabilities(output.student))
    if log_student is not None:
        numbers["student_entropy"] = entropy(log_student.exp()).mean()
        crossed = [-(targets.values[t] * log_student[s]).sum(-1).mean() for t, s in pairs]
        numbers["target_kl"] = (torch.stack(crossed) - torch.stack([of_targets[t] for t, _ in pairs])).mean()
    return numbers
