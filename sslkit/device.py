"""Choice of device and precision."""

import os

import torch

from sslkit.errors import RecipeError

COMPILE_OPTIONS = {"fallback_random": True}
"""Options of torch.compile: random layers draw from torch's generator, as uncompiled, and not from Inductor's own."""


def choose_device(name: str, key: str = "runtime.device") -> torch.device:
    """Return a device by name; ``auto`` is CUDA, else Apple's GPU, else the CPU.

    Args:
        name: auto, cpu, cuda, cuda:N or mps.
        key: recipe key or option with the name, for the message.

    Raises:
        RecipeError: this machine has no such device.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    here = [kind for kind, is_there in available.items() if is_there]
    if name == "auto":
        return torch.device("cuda" if available["cuda"] else here[-1])
    kind, _, index = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not available.get(kind) or (index and not (index.isdecimal() and int(index) < count)):
        raise RecipeError(f"{key}: {name!r} is not available here. Choices: auto, {', '.join(here)}.")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> str:
    """Return the precision: bf16, fp16 or fp32; ``auto`` is bf16 where the device has instructions for it, else fp32.

    Args:
        name: auto, bf16, fp16 or fp32.
        device: device of the run.

    Raises:
        RecipeError: fp16 on a CPU.
    """
    if name == "fp16" and device.type == "cpu":
        raise RecipeError("precision: 'fp16' needs a GPU, and this run is on the CPU. Choices: auto, bf16, fp32.")
    if name != "auto":
        return name
    # Without instructions for it bf16 is emulated, which torch counts as support unless it is asked not to.
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


def memory_size() -> int | None:
    """Return the bytes of memory of this machine, or None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
