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
VICREG = {"model": {**under("module.backbone.", FIRST), "module.projector.0.weight": torch.ones(2)}, "epoch": 1}
SOLO = {"state_dict": {**VICREG["model"], **under("momentum_backbone.", SECOND)}}
SIMSIAM = {"state_dict": {**under("module.encoder.", FIRST), "module.predictor.0.weight": torch.ones(2)}}
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
        (VICREG, None, FIRST, "student", {"projector": 1}),
        (SOLO, "teacher", SECOND, "teacher", {"projector": 1, "backbone": 2}),
        (SIMSIAM, None, FIRST, "student", {"predictor": 1}),
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
    assert (weights.network, weights.heads) == (source, {})


@pytest.mark.parametrize(
    ("checkpoint", "layout"),
    [(DINO, "DINO"), (MOCO, "MoCo"), (MOCO_V3, "MoCo-v3"), (SWAV, "SwAV"), (FIRST, "plain"), (VICREG, "VICReg")],
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


CENTER = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
DINO_HEAD = {
    **{f"head.mlp.{i}.{kind}": torch.randn(2) for i in (0, 2, 4) for kind in ("weight", "bias")},
    "head.last_layer.weight_g": torch.randn(4, 1),
    "head.last_layer.weight_v": torch.randn(4, 2),
}
OURS = {
    **{f"head.projector.{i}.{kind}": f"head.mlp.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")},
    "head.prototypes.weight_g": "head.last_layer.weight_g",
    "head.prototypes.weight_v": "head.last_layer.weight_v",
}


@pytest.mark.parametrize("network", ["teacher", "student"])
def test_the_head_and_the_center_of_dino(network, tmp_path):
    other = {name: tensor + 1 for name, tensor in DINO_HEAD.items()}
    checkpoint = {
        "teacher": {**under("backbone.", FIRST), **DINO_HEAD},
        "student": under("module.", {**under("backbone.", SECOND), **other}),
        "dino_loss": {"center": CENTER},
    }
    torch.save(checkpoint, tmp_path / "dino.pth")
    found = read_checkpoint(tmp_path / "dino.pth", network, heads=True)
    theirs = DINO_HEAD if network == "teacher" else other
    assert torch.equal(found.heads["collapse.center"], CENTER[0])
    assert found.heads.keys() - {"collapse.center"} == OURS.keys()
    assert all(torch.equal(found.heads[ours], theirs[name]) for ours, name in OURS.items())
    unused = {"teacher", "student"} - {network}
    assert found.beside == {f"{name}.{part}": n for name in unused for part, n in (("backbone", 2), ("head", 8))}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["teacher.head.mlp.weight", "teacher.head.mlp.bias"], ["projector.0.weight", "projector.0.bias"]),
        (
            [f"teacher.head.last_layer.parametrizations.weight.original{i}" for i in (0, 1)],
            ["prototypes.weight_g", "prototypes.weight_v"],
        ),
        (["encoder_q.fc.0.weight", "encoder_q.fc.2.bias"], ["projector.0.weight", "projector.2.bias"]),
        (["encoder_q.fc.weight"], ["projector.0.weight"]),
        (["projection_head.1.running_mean", "prototypes.weight"], ["projector.1.running_mean", "prototypes.weight"]),
    ],
)
def test_the_names_of_heads(names, expected, tmp_path):
    prefix = {"teacher": "teacher.backbone.", "encoder_q": "encoder_q."}.get(names[0].partition(".")[0], "")
    tensors = {name: torch.full((1,), float(i)) for i, name in enumerate(names)}
    torch.save({**under(prefix, FIRST), **tensors}, tmp_path / "weights.pth")
    found = read_checkpoint(tmp_path / "weights.pth", heads=True)
    assert [*found.heads] == [f"head.{name}" for name in expected]
    assert [*map(float, found.heads.values())] == [*range(len(names))]
    assert found.tensors.keys() == FIRST.keys()


@pytest.mark.parametrize("kept", [{"num_heads": 12}, argparse.Namespace(num_heads=12)])
def test_a_recorded_number_of_attention_heads(kept, tmp_path):
    torch.save({"model": FIRST, "args": kept}, tmp_path / "weights.pth")
    assert read_checkpoint(tmp_path / "weights.pth").num_heads == 12


@pytest.mark.parametrize(("width", "num_heads"), [(384, 12), (768, None)])
def test_the_vit_s_of_moco_v3_has_twelve_heads(width, num_heads, tmp_path):
    torch.save({"state_dict": {"module.base_encoder.cls_token": torch.ones(1, 1, width)}}, tmp_path / "moco.pth")
    assert read_checkpoint(tmp_path / "moco.pth").num_heads == num_heads


def test_mappings_inside_themselves_are_one_message(tmp_path):
    inside = dict(FIRST)
    inside["again"] = inside
    torch.save(inside, tmp_path / "circle.pth")
    with pytest.raises(SSLKitError, match=r"circle\.pth holds a mapping that is inside itself"):
        read_checkpoint(tmp_path / "circle.pth")
