"""Choose a device and a precision."""

import torch

from sslkit.errors import RecipeError

COMPILE_OPTIONS = {"fallback_random": True}
"""Of torch.compile: layers draw what they draw uncompiled, so that compiling changes rounding alone."""


def choose_device(name: str, key: str = "runtime.device") -> torch.device:
    """Return the device of that name; ``auto`` takes CUDA, else Apple's GPU, else the CPU.

    Args:
        name: auto, cpu, cuda, cuda:N, mps.
        key: where the name was written, for the error.

    Raises:
        RecipeError: there is no such device here.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    here = [kind for kind, there in available.items() if there]
    if name == "auto":
        return torch.device("cuda" if available["cuda"] else here[-1])
    kind, _, index = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not available.get(kind) or (index and not (index.isdecimal() and int(index) < count)):
        raise RecipeError(f"{key}: {name!r} is not available here. Choices: auto, {', '.join(here)}.")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> str:
    """Return the precision; ``auto`` takes bf16 where the device has instructions for it, else fp32.

    Raises:
        RecipeError: fp16 on a CPU.
    """
    if name == "fp16" and device.type == "cpu":
        raise RecipeError("precision: 'fp16' needs a GPU, and this run is on the CPU. Choices: auto, bf16, fp32.")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"
