"""An export is the run's backbone to rounding, whole or not there at all, and never written over something."""

import json
from io import StringIO

import pytest
import timm
import torch
from exports import CASES, CHANNELS_8, as_a_user, far, images_of
from rich.console import Console
from safetensors.torch import load_file

from sslkit import plugins
from sslkit.backbones.loading import load_model
from sslkit.backbones.raw_pixels import RawPixels
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.backbones.timm_models import images_for_timm
from sslkit.contracts import Backbone
from sslkit.errors import NotSupported, SSLKitError
from sslkit.exporting.export import TARGETS, Target, export
from sslkit.launch import train
from sslkit.recipe import load
from sslkit.types import Features


def left_in(place):
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())


@pytest.mark.parametrize("target", ["timm", "hf"])
@pytest.mark.parametrize(("arguments", "preprocessing"), CASES.values(), ids=CASES)
def test_timm_loads_the_runs_backbone(arguments, preprocessing, target, make_run):
    run = make_run(preprocessing, teacher=TimmBackbone(**arguments), student=TimmBackbone(**arguments))
    done = export(run, target, network="student")
    assert done.folder == run.with_name(f"run-student-{target}")
    assert done.difference < 5e-6
    files = ["README.md"] * (target == "hf") + ["config.json", "data.json", "model.safetensors"]
    assert left_in(done.folder) == files
    seen, model = images_of(preprocessing), as_a_user(done.folder)
    ours = load_model(str(run), "student").backbone
    with torch.no_grad():
        assert far(model(seen), ours(seen).cls) < 5e-6  # timm's attention may be fused where the run's was not
        assert far(model(seen), load_model(str(run)).backbone(seen).cls) > 1e-2
        assert torch.equal(load_model(str(done.folder)).backbone(seen).cls, ours(seen).cls)
    assert load_model(str(done.folder)).preprocessing == load_model(str(run)).preprocessing
    size, channels = preprocessing.size, preprocessing.channels
    said = timm.data.resolve_model_data_config(model)
    assert json.dumps(said, sort_keys=True) == json.dumps(images_for_timm(preprocessing), sort_keys=True)
    assert (said["input_size"], said["mean"]) == ((channels, size, size), preprocessing.mean)
    config = json.loads((done.folder / "config.json").read_text())
    assert config["model_args"]["in_chans"] == channels
    assert not {"tag", "license", "origin_url", "paper_ids", "test_input_size"} & {*config["pretrained_cfg"]}


COPY = """\
method:
  backbone: {TimmBackbone: {name: vit_tiny_patch16_224, model_args:
    {img_size: 16, patch_size: 8, depth: 1, embed_dim: 24}}}
  head: {SwAVHead: {num_prototypes: 8, hidden_dim: 16, embed_dim: 8}}
  teacher: Copy
  collapse: SinkhornKnopp
  loss: CrossEntropy
views: {MultiCrop: {crop_on: device, canvas_size: 16, global_size: 16, num_local_views: 0}}
data: {train: {Textures: {num_images: 16, size: 16}}, mean: [0.4, 0.5, 0.6], std: [0.2, 0.2, 0.2]}
optimization: {optimizer: AdamW, batch_size: 8, epochs: 2, lr: 0.01}
precision: fp32
runtime: {device: cpu, threads: 1, num_workers: 0, log_every: 1, callbacks: [StopOnce]}
"""


STOP = '''\
from sslkit.contracts import Callback


class StopOnce(Callback):
    """Ends the first run after its second step."""

    def on_step_end(self, run, metrics):
        if metrics["step"] == 2:
            run.interrupted = True
'''


def test_a_resumed_run_whose_teacher_is_the_student(tmp_path):
    (tmp_path / "copy.yaml").write_text(COPY)
    (tmp_path / "stop.py").write_text(STOP)
    with plugins.using([tmp_path / "stop.py"]):
        steps = []
        for resume in (False, True):
            quiet = Console(file=StringIO())
            steps.append(train(load(tmp_path / "copy.yaml"), tmp_path / "run", resume, quiet).clock.step)
    assert steps == [2, 4]
    made = {network: export(tmp_path / "run", network=network).folder for network in ("teacher", "student")}
    teacher, student = (load_file(folder / "model.safetensors") for folder in made.values())
    assert all(torch.equal(teacher[name], student[name]) for name in student)
    newest = next((tmp_path / "run" / "checkpoints").glob("*4")) / "state.safetensors"
    stored = {name.rpartition("backbone.model.")[2]: value for name, value in load_file(newest).items()}
    assert torch.equal(teacher["cls_token"], stored["cls_token"])
    assert as_a_user(made["teacher"]).pretrained_cfg["mean"] == [0.4, 0.5, 0.6]


class Mine(Backbone):
    """A backbone that timm has never heard of."""

    embed_dim = 2

    def forward(self, images, mask=None):
        return Features(images.mean((2, 3))[:, :2])

    def save(self, folder, preprocessing=None):
        (folder / "config.json").write_text(json.dumps({"sslkit": {"backbone": "Mine"}}))

    @classmethod
    def load(cls, folder):
        return cls()


STEM = TimmBackbone, dict(name="resnet18", small_image_stem=True, model_args=CHANNELS_8)


@pytest.mark.parametrize("target", ["timm", "hf"])
@pytest.mark.parametrize(
    ("made", "said"),
    [
        (STEM, "timm cannot load 'resnet18' with small_image_stem, .* Export with --to onnx"),
        ((RawPixels, {}), "RawPixels is no timm model. --to onnx takes any backbone"),
        ((Mine, {}), "Mine is no timm model. --to onnx takes any backbone"),
    ],
    ids=["small-image stem", "raw pixels", "a plugin's"],
)
def test_what_timm_does_not_know_is_refused_by_name(made, said, target, make_run, tmp_path, monkeypatch):
    cls, arguments = made
    run = make_run(teacher=cls(**arguments))
    registry = plugins.active().registry
    monkeypatch.setattr(registry, "names", lambda kind: [cls.__name__])
    monkeypatch.setattr(registry, "get", lambda kind, name: cls)
    before = left_in(tmp_path)
    with pytest.raises(NotSupported, match=said):
        export(run, target)
    assert left_in(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_plugins_backbone_that_knows_timm_is_taken(make_run, monkeypatch):
    class Own(TimmBackbone):
        """A subclass from elsewhere."""

    run = make_run(teacher=Own("test_resnet"))
    registry = plugins.active().registry
    monkeypatch.setattr(registry, "names", lambda kind: ["Own"])
    monkeypatch.setattr(registry, "get", lambda kind, name: Own)
    assert export(run).difference < 1e-6


def test_a_run_that_diverged_is_refused(make_run, tmp_path):
    broken = TimmBackbone("test_vit", model_args={"depth": 1})
    torch.nn.init.constant_(broken.model.norm.weight, float("nan"))
    with pytest.raises(SSLKitError, match="not finite: its run has diverged"):
        export(make_run(teacher=broken))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("kind", ["file", "full", "run"])
def test_nothing_is_written_over(kind, make_run, tmp_path):
    run, out = make_run(), tmp_path / "out"
    if kind == "file":
        out.write_text("kept")
    elif kind == "full":
        out.mkdir()
        (out / "note").write_text("kept")
    out = run if kind == "run" else out
    before = {path: (tmp_path / path).read_bytes() for path in left_in(tmp_path)}
    with pytest.raises(SSLKitError, match="is there already and is no empty folder"):
        export(run, out=out)
    assert {path: (tmp_path / path).read_bytes() for path in left_in(tmp_path)} == before


def test_an_empty_folder_and_new_parents_are_fine(make_run, tmp_path):
    run = make_run()
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", str(tmp_path / "a" / "b")):
        assert left_in(export(run, out=out).folder) == ["config.json", "data.json", "model.safetensors"]


def test_a_place_that_cannot_be_written_is_named(make_run, tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SSLKitError, match=r"--out: .*/file/below cannot be written"):
        export(make_run(), out=tmp_path / "file" / "below")


def test_an_interrupted_export_leaves_nothing_and_a_crashs_remains_are_removed(make_run, tmp_path, monkeypatch):
    run = make_run()

    def interrupted(source, folder):
        (folder / "config.json").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(TARGETS, "timm", Target(interrupted, TARGETS["timm"].read))
        with pytest.raises(KeyboardInterrupt):
            export(run)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    (tmp_path / ".run-teacher-timm.tmp").mkdir()
    (tmp_path / ".run-teacher-timm.tmp" / "model.bin").write_text("half")
    assert left_in(export(run).folder) == ["config.json", "data.json", "model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-teacher-timm"]
