"""Choice between fused attention and plain matrix products for a new run."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from sslkit.device import choose_device, choose_precision
from sslkit.errors import SSLKitError
from sslkit.recipe.loading import Recipe, load
from sslkit.recipe.sections import BuiltRecipe
from sslkit.recipe.signature import parameters

KEY, ARGUMENT = "method.backbone", "fused_attention"


@runtime_checkable
class ChoosesAttention(Protocol):
    """A backbone whose attention can be fused or not, such as `TimmBackbone`."""

    fused_attention: bool | None

    @property
    def has_attention(self) -> bool:
        """Whether there is attention to choose for."""

    def choose_attention(self, fused: bool) -> None:
        """Compute attention by one fused kernel or by plain matrix products."""


def choose_attention(recipe: Recipe, built: BuiltRecipe, folder: Path) -> None:
    """Write the kernel of attention into a recipe that leaves it open, where timm's choice is the slower one.

    Under bf16 autocast on a CPU plain products train 1.5 times as fast as the fused kernel (docs/speed.md). A run that
    has begun keeps what its recipe.yaml says, on any device, since the choice changes rounding.

    Args:
        recipe: gets the choice as ``method.backbone.fused_attention``, which its identity and recipe.yaml then hold.
        built: the recipe built; its backbone is changed.
        folder: the run folder.
    """
    backbone = built.method.backbone
    if not isinstance(backbone, ChoosesAttention) or backbone.fused_attention is not None:
        return
    fused = _recorded(folder) if _has_begun(folder) else _fastest(built, backbone)
    spec = recipe.root.at(KEY)
    if fused is not None and ARGUMENT in parameters(spec.cls):
        spec.given[ARGUMENT] = fused
        backbone.choose_attention(fused)


def _fastest(built: BuiltRecipe, backbone: ChoosesAttention) -> bool | None:
    device = choose_device(built.runtime.device)
    is_slow = device.type == "cpu" and choose_precision(built.precision, device) == "bf16"
    return False if is_slow and backbone.has_attention else None


def _has_begun(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("recipe.yaml", "checkpoints"))


def _recorded(folder: Path) -> bool | None:
    """Return the choice in a run's recipe.yaml; None if there is none or the file cannot be read."""
    try:
        fused = load(folder / "recipe.yaml").root.at(f"{KEY}.{ARGUMENT}")
    except (SSLKitError, KeyError):
        return None
    return fused if isinstance(fused, bool) else None
