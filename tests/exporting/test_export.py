"""An export is the run's backbone to rounding, whole or not there at all, and never written over something."""

import json
from io import StringIO

import pytest
import timm
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from torchvision.transforms.functional import pil_to_tensor

import sslkit
from sslkit import plugins
from sslkit.backbones.loading import load_model
from sslkit.backbones.raw_pixels import RawPixels
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.backbones.timm_models import images_for_timm
from sslkit.contracts import Backbone
from sslkit.errors import NotSupported, SSLKitError, UnknownName
from sslkit.exporting.agreement import TOLERANCE, largest_difference, trial_images
from sslkit.exporting.export import TARGETS, Target, export
from sslkit.launch import train
from sslkit.recipe import load
from sslkit.types import Features, Preprocessing
from sslkit.views.evaluation import EvaluationView

CHANNELS_8 = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]}
CASES = {
    "vit 32/4": (
        dict(name="vit_tiny_patch16_224", model_args={"img_size": 32, "patch_size": 4, "depth": 2, "embed_dim": 48}),
        Preprocessing(3, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3], None, 32, 32),
    ),
    "vit at another size than its own": (
        dict(name="test_vit", drop_path_rate=0.2),
        Preprocessing(3, [0.5] * 3, [0.25] * 3, None, 64, 73),
    ),
    "resnet": (dict(name="resnet18", model_args=CHANNELS_8), Preprocessing(3, [0.4] * 3, [0.2] * 3, None, 44, 69)),
    "five channels": (
        dict(name="resnet18", in_chans=5, model_args=CHANNELS_8),
        Preprocessing(5, [0.1, 0.2, 0.3, 0.4, 0.5], [0.2] * 5, [0, 10000], 33, 40),
    ),
    "grey": (dict(name="test_vit", in_chans=1, fused_attention=False), Preprocessing(1, [0.3], [0.2], None, 32, 36)),
}


def as_a_user(folder):
    return timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()


def images_of(preprocessing, batch=3):
    return torch.randn(batch, preprocessing.channels, preprocessing.size, preprocessing.size)


def far(found, expected):
    return ((found - expected).norm(dim=1) / expected.norm(dim=1)).max()


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


def test_img_size_travels(make_run):
    arguments, preprocessing = CASES["vit 32/4"]
    folder = export(make_run(preprocessing, teacher=TimmBackbone(**arguments))).folder
    assert as_a_user(folder).patch_embed.img_size == (32, 32)
    assert as_a_user(folder).patch_embed.patch_size == (4, 4)


@pytest.mark.parametrize(("size", "resize"), [(32, 37), (44, 69), (64, 64)])
def test_timm_prepares_pictures_as_the_run_did(size, resize, make_run):
    preprocessing = Preprocessing(3, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3], None, size, resize)
    folder = export(make_run(preprocessing, teacher=TimmBackbone("resnet18", model_args=CHANNELS_8))).folder
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(as_a_user(folder)))
    picture = Image.effect_noise((150, 100), 80).convert("RGB").rotate(20)
    ours = EvaluationView(size, resize, 3, preprocessing.mean, preprocessing.std)(pil_to_tensor(picture))
    # Pillow and torch resize bytes alike but for the last bit.
    torch.testing.assert_close(transform(picture), ours, atol=2 / 255 / 0.2, rtol=0)


def test_every_size_keeps_its_resize_in_timms_words():
    for size in range(1, 300, 7):
        for resize in range(size, 2 * size + 3):
            crop_pct = images_for_timm(Preprocessing(3, (0,), (1,), None, size, resize))["crop_pct"]
            assert int(size / crop_pct) == resize  # as timm computes it
            assert crop_pct == pytest.approx(size / resize, rel=1e-12)


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


def shifted(by):
    def read(folder):
        model = as_a_user(folder)
        return lambda images: model(images) * (1 + by)

    return read


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (shifted(3 * TOLERANCE), "differ from the run's by 3.0e-04 of their length, more than 1e-04"),
        (shifted(float("nan")), "differ from the run's by nan"),
        (lambda folder: lambda images: as_a_user(folder)(images)[:, 1:], "by inf"),
    ],
    ids=["other numbers", "NaN", "another shape"],
)
def test_an_export_that_says_something_else_is_refused_and_leaves_nothing(read, said, make_run, tmp_path, monkeypatch):
    monkeypatch.setitem(TARGETS, "timm", Target(TARGETS["timm"].write, read))
    run = make_run()
    with pytest.raises(SSLKitError, match=said):
        export(run)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_rounding_passes(make_run, monkeypatch):
    monkeypatch.setitem(TARGETS, "timm", Target(TARGETS["timm"].write, shifted(0.5 * TOLERANCE)))
    assert export(make_run()).difference == pytest.approx(0.5 * TOLERANCE, rel=0.05)


def test_the_difference_is_that_of_the_worst_image():
    expected = [torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[0.0, 2.0]])]
    found = iter([torch.tensor([[3.0, 4.5], [0.0, 1.0]]), torch.tensor([[0.0, 1.5]])])
    assert largest_difference(lambda images: next(found), [torch.zeros(2), torch.zeros(1)], expected) == 0.25


def test_trial_images_are_normalised_and_leave_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    noise, textures, one = trial_images(Preprocessing(5, [0.1, 0.5, 0.5, 0.5, 0.5], [0.2] * 5, [0, 9], 12, 17))
    assert torch.equal(torch.rand(1), expected)
    assert (noise.shape, textures.shape, one.shape) == ((4, 5, 12, 12), (8, 5, 12, 12), (1, 5, 12, 12))
    # Bands 0 and 3 hold the same pixels and have other means.
    torch.testing.assert_close(textures[:, 0] - textures[:, 3], torch.full_like(textures[:, 0], 2.0))
    assert textures.std() > 0.3
    assert textures.min() >= -2.5


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


def test_what_timm_cannot_load_back_is_one_message(make_run, tmp_path, monkeypatch):
    write = TARGETS["timm"].write

    def other_architecture(source, folder):
        write(source, folder)
        text = (folder / "config.json").read_text().replace('"depth": 1', '"depth": 2')
        (folder / "config.json").write_text(text)

    monkeypatch.setitem(TARGETS, "timm", Target(other_architecture, TARGETS["timm"].read))
    with pytest.raises(SSLKitError, match=r"timm cannot load this backbone back: .*Missing key") as error:
        export(make_run())
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_backbone_alone_can_be_exported(tmp_path):
    backbone = TimmBackbone("test_vit", model_args={"depth": 1}).eval()
    backbone.save(tmp_path / "mine")
    done = export(tmp_path / "mine", "hf")
    assert (done.folder.name, done.network) == ("mine-hf", "mine")
    seen = torch.randn(2, 3, 160, 160)
    torch.testing.assert_close(as_a_user(done.folder)(seen), backbone(seen).cls)


def test_a_networks_folder_belongs_to_its_run(make_run, tmp_path):
    run = make_run(recipe="name: mine\ndata: {train: Textures}\n")
    done = export(run / "student", "hf")
    assert (done.folder, done.network) == (tmp_path / "run-student-hf", "student")
    assert "name: mine" in (done.folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["raw-pixels", "timm:test_vit", "run"])
def test_a_folder_is_a_folder_whatever_its_name(name, make_run, tmp_path, monkeypatch):
    make_run(name=name)
    monkeypatch.chdir(tmp_path)
    assert sslkit.export(name).folder == tmp_path / f"{name}-teacher-timm"


@pytest.mark.parametrize(
    ("run", "arguments", "error", "said"),
    [
        ("nowhere", {}, SSLKitError, "nowhere does not exist. RUN is a run folder"),
        ("empty", {}, SSLKitError, "empty holds neither a run nor a backbone"),
        ("young", {}, SSLKitError, "this run has not saved its networks yet"),
        ("run", {"network": "techer"}, UnknownName, "unknown network 'techer'. Did you mean 'teacher'"),
        ("run", {"to": "onx"}, UnknownName, "--to: unknown target 'onx'. Did you mean 'onnx'"),
        ("damaged", {}, SSLKitError, "damaged/teacher: cannot load this backbone"),
    ],
)
def test_a_bad_run_is_named(run, arguments, error, said, make_run, tmp_path):
    make_run()
    damaged = make_run(name="damaged") / "teacher" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    (tmp_path / "empty").mkdir()
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "recipe.yaml").write_text("seed: 1\n")
    with pytest.raises(error, match=said):
        export(tmp_path / run, **arguments)


DINO = dict(name="test_vit", positions="dino", model_args={"depth": 2, "reg_tokens": 1})


@pytest.mark.parametrize(("size", "stored"), [(160, 160), (96, 160), (96, 64), (208, 160)])
def test_timm_gives_dinos_positions_at_the_runs_size(size, stored, make_run):
    preprocessing = Preprocessing(3, [0.5] * 3, [0.25] * 3, None, size, size)
    arguments = DINO | {"model_args": DINO["model_args"] | {"img_size": stored}}
    run = make_run(preprocessing, teacher=TimmBackbone(**arguments))
    done = export(run)
    model, seen, ours = as_a_user(done.folder), images_of(preprocessing), load_model(str(run)).backbone
    again = load_model(str(done.folder)).backbone
    assert done.difference == 0
    assert (again.positions, model.patch_embed.img_size) == ("dino", (size, size))
    with torch.no_grad():
        assert torch.equal(model(seen), ours(seen).cls)
        assert torch.equal(again(seen).cls, ours(seen).cls)
        # Were they stored as the run has them, timm would resample them in its own way.
        theirs = as_a_user(run / "teacher")
        assert torch.equal(theirs(seen), ours(seen).cls) == (size == stored)
        other = torch.randn(3, 3, 32, 32)
        assert far(model(other), again(other).cls) > 1e-3
