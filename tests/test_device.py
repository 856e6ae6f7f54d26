"""Which device, which precision, and draws that depend on the step alone."""

import pytest
import torch

from sslkit.device import choose_device, choose_precision, memory_size
from sslkit.errors import RecipeError

CPU = torch.device("cpu")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_auto_takes_what_there_is(monkeypatch):
    assert choose_device("auto") == choose_device("cpu") == CPU
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "gpu", "", "tpu:3"])
def test_what_is_not_here_is_refused_with_the_choices(name):
    with pytest.raises(RecipeError, match=r"runtime\.device: .* is not available here\. Choices: auto, cpu\."):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda:2", "cuda:x", "cuda:-1"])
def test_a_gpu_that_is_not_here_is_refused(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(RecipeError, match=f"'{name}' is not available here"):
        choose_device(name)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32"), ({}, "fp32")],
)
def test_auto_takes_bf16_only_where_the_cpu_has_instructions_for_it(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision("auto", CPU) == expected


@pytest.mark.parametrize("native", [True, False])
def test_auto_asks_a_gpu_whether_it_emulates_bf16(native, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert choose_precision("auto", torch.device("cuda")) == ("bf16" if native else "fp32")


def test_a_named_precision_is_taken_but_fp16_on_a_cpu_is_refused():
    assert [choose_precision(name, CPU) for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert choose_precision("fp16", torch.device("cuda")) == "fp16"
    with pytest.raises(RecipeError, match=r"precision: 'fp16' needs a GPU"):
        choose_precision("fp16", CPU)


def test_the_memory_of_this_machine_is_known():
    assert memory_size() is None or memory_size() > 2**28
