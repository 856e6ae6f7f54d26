"""Checkpoints in the layouts that other programs write; none is ever unpickled beyond tensors and plain containers."""

import argparse
import pickle

import pytest
import torch
from safetensors.torch import save_file

from sslkit.backbones.foreign import read_checkpoint
from sslkit.errors import SSLKitError, UnknownName

FIRST = {"conv1.weight": torch.randn(2, 3), "bn1.num_batches_tracked": torch.tensor(7)}
SECOND = {"conv1.weight": torch.randn(2, 3), "bn1.num_batches_tracked": torch.tensor(8)}


def under(prefix, tensors):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


MOMENTS = {"state": {0: {"exp_avg": torch.ones(3), "step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}
DINO = {
    "student": {**under("module.backbone.", SECOND), "module.head.mlp.0.weight": torch.ones(2)},
    "teacher": {**under("backbone.", FIRST), "head.mlp.0.weight": torch.ones(2), "head.mlp.0.bias": torch.ones(2)},
    "optimizer": MOMENTS,
    "epoch": 100,
    "args": argparse.Namespace(arch="vit_small", local_crops_scale=(0.05, 0.4), output_dir=None),
    "dino_loss": {"center": torch.zeros(1, 4)},
}
MOCO = {
    "epoch": 200,
    "arch": "resnet50",
    "state_dict": {
        **under("module.encoder_q.", FIRST),
        "module.encoder_q.fc.0.weight": torch.ones(2),
        **under("module.encoder_k.", SECOND),
        "module.queue": torch.ones(2, 5),
        "module.queue_ptr": torch.zeros(1, dtype=torch.long),
    },
    "optimizer": MOMENTS,
}
MOCO_V3 = {"state_dict": {**under("module.base_encoder.", FIRST), **under("module.momentum_encoder.", SECOND)}}
SWAV = {
    **under("module.", FIRST),
    "module.projection_head.0.weight": torch.ones(2),
    "module.prototypes.weight": torch.ones(5, 2),
}
SWAV_NAMES = {name.removeprefix("module."): tensor for name, tensor in SWAV.items()}
BESIDE_DINO = {"teacher.head": 2, "student.head": 1, "optimizer.state": 2, "dino_loss.center": 1}
BESIDE_MOCO = {"queue": 1, "queue_ptr": 1}


@pytest.mark.parametrize(
    ("checkpoint", "network", "expected", "source", "beside"),
    [
        (DINO, None, FIRST, "teacher", BESIDE_DINO | {"student.backbone": 2}),
        (DINO, "student", SECOND, "student", BESIDE_DINO | {"teacher.backbone": 2}),
        (MOCO, None, {**FIRST, "fc.0.weight": torch.ones(2)}, "student", BESIDE_MOCO | {"encoder_k": 2}),
        (MOCO, "teacher", SECOND, "teacher", BESIDE_MOCO | {"encoder_q": 3}),
        (MOCO_V3, None, FIRST, "student", {"momentum_encoder": 2}),
        (MOCO_V3, "teacher", SECOND, "teacher", {"base_encoder": 2}),
        (SWAV, None, SWAV_NAMES, "student", {}),
        ({"state_dict": SWAV}, "student", SWAV_NAMES, "student", {}),
        (FIRST, None, FIRST, "backbone", {}),
        ({"model": FIRST, "optimizer": MOMENTS, "epoch": 3}, None, FIRST, "backbone", {}),
    ],
)
def test_layouts_are_recognised_by_their_names(checkpoint, network, expected, source, beside, tmp_path):
    torch.save(checkpoint, tmp_path / "weights.pth")
    weights = read_checkpoint(tmp_path / "weights.pth", network)
    assert weights.tensors.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.tensors.items())
    assert weights.source.startswith(f"the {source} of {tmp_path}")
    assert weights.beside == beside


@pytest.mark.parametrize(
    ("checkpoint", "layout"), [(DINO, "DINO"), (MOCO, "MoCo"), (MOCO_V3, "MoCo-v3"), (SWAV, "SwAV"), (FIRST, "plain")]
)
def test_the_layout_is_named(checkpoint, layout, tmp_path):
    torch.save(checkpoint, tmp_path / "weights.pth.tar", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "weights.pth.tar").source.endswith(f"({layout} layout)")


def test_safetensors_are_read_too(tmp_path):
    save_file(under("module.encoder_q.", FIRST), tmp_path / "moco.safetensors")
    assert read_checkpoint(tmp_path / "moco.safetensors").tensors.keys() == FIRST.keys()


def test_a_network_that_is_not_there_is_refused(tmp_path):
    torch.save({"state_dict": under("module.encoder_q.", FIRST)}, tmp_path / "moco.pth")
    with pytest.raises(UnknownName, match=r"moco\.pth \(MoCo layout\): unknown network 'teacher'.* Choices: student"):
        read_checkpoint(tmp_path / "moco.pth", "teacher")


class Trap:
    """Runs something where it is unpickled."""

    def __reduce__(self):
        return (print, ("sprung",))


class Stranger:
    """Any other object."""


@pytest.mark.parametrize(
    ("unwanted", "said"), [(Trap(), "print besides weights"), (Stranger(), r"test_foreign\.Stranger besides weights")]
)
def test_objects_are_never_unpickled(unwanted, said, tmp_path, capsys):
    torch.save({"state_dict": FIRST, "args": unwanted}, tmp_path / "trap.pth")
    with pytest.raises(SSLKitError, match=rf"{said}.*torch\.save\(model\.state_dict\(\), FILE\)"):
        read_checkpoint(tmp_path / "trap.pth")
    assert capsys.readouterr().out == ""


def test_a_namespace_is_allowed_for_this_reading_alone(tmp_path):
    torch.save(DINO, tmp_path / "dino.pth")
    read_checkpoint(tmp_path / "dino.pth")
    with pytest.raises(pickle.UnpicklingError, match="Namespace"):
        torch.load(tmp_path / "dino.pth", weights_only=True)


def test_a_jax_pickle_is_refused_unopened_with_advice(tmp_path):
    (tmp_path / "byol.pkl").write_bytes(pickle.dumps({"online_params": Trap()}))
    with pytest.raises(SSLKitError, match=r"byol\.pkl is a pickle of another framework \(BYOL.*\.safetensors file"):
        read_checkpoint(tmp_path / "byol.pkl")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read"),
        (b"PK\x03\x04 cut short", "cannot be read"),
        (pickle.dumps({"a": 1}, protocol=2), "cannot be read"),
        (pickle.dumps(Trap(), protocol=5), "besides weights"),
    ],
)
def test_damaged_files_are_one_message(content, said, tmp_path):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(SSLKitError, match=rf"broken\.pth .*{said}"):
        read_checkpoint(tmp_path / "broken.pth")
    (tmp_path / "broken.safetensors").write_bytes(content)
    with pytest.raises(SSLKitError, match=r"broken\.safetensors cannot be read"):
        read_checkpoint(tmp_path / "broken.safetensors")


@pytest.mark.parametrize("checkpoint", [{}, {"epoch": 3}, [torch.ones(2)], 3])
def test_a_file_without_names_holds_no_weights(checkpoint, tmp_path):
    torch.save(checkpoint, tmp_path / "empty.pth")
    with pytest.raises(SSLKitError, match=r"empty\.pth holds no named weights"):
        read_checkpoint(tmp_path / "empty.pth")
