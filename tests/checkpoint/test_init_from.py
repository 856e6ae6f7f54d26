"""Runs that start from weights: taken once, whole, by both networks, and never again where a run goes on."""

import argparse
import json
import re
import shlex
import shutil
from io import StringIO
from pathlib import Path

import pytest
import timm
import torch
import yaml
from bad_weights import make
from rich.console import Console
from safetensors.torch import load_file, save_file

from sslkit import plugins
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.checkpoint.init_from import Start
from sslkit.cli.main import main
from sslkit.errors import RecipeError, SSLKitError
from sslkit.launch import train
from sslkit.recipe import load
from sslkit.training.trainer import Trainer

RECIPE = """\
method:
  backbone:
    TimmBackbone:
      name: resnet18
      small_image_stem: true
      model_args: {layers: [1, 1, 1, 1], channels: [4, 4, 4, 8], stem_type: deep, stem_width: 2}
  head: {DINOHead: {num_prototypes: 16, hidden_dim: 8, embed_dim: 4, num_layers: 2}}
  teacher: {EMA: {momentum: 0.9}}
  collapse: {Centering: {temperature: 0.04}}
  loss: CrossEntropy
views: {MultiCrop: {crop_on: device, canvas_size: 16, global_size: 16, num_local_views: 0}}
data:
  train: {Textures: {num_images: 24, size: 16}}
  test: {Textures: {num_images: 24, size: 16, split: test}}
optimization: {optimizer: AdamW, batch_size: 8, epochs: 2, lr: 0.02}
precision: fp32
runtime: {device: cpu, threads: 1, log_every: 1, checkpoint_every: 2 steps, num_workers: 0}
evaluation: {evaluators: [{KNN: {k: [5]}}], baselines: [untrained], networks: [teacher]}
"""

STOP = '''\
from sslkit.contracts import Callback


class Stop(Callback):
    """Interrupts a run.

    Args:
        step: after which.
    """

    def __init__(self, step: int = 0) -> None:
        self.step = step

    def on_run_start(self, run): run.interrupted = self.step == 0
    def on_step_end(self, run, metrics): run.interrupted = self.step == metrics["step"]
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder that holds the tiny recipe and ``first``, a run of it."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "stop.py").write_text(STOP)
    go(folder, folder / "first")
    return folder


@pytest.fixture(autouse=True)
def _stop(place):
    with plugins.using([place / "stop.py"]):
        yield


def go(place, folder, *overrides, resume=False, recipe=None):
    console = Console(file=StringIO(), width=200)
    run = train(load(recipe or place / "tiny.yaml", overrides), folder, resume, console)
    run.said = console.file.getvalue()
    return run


def start(place, *overrides, recipe=None):
    """Return the run before its first step, nothing written."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Trainer, "execute", lambda self, resume: None)
        return go(place, place / "never", "--seed", "7", *overrides, recipe=recipe)


def weights(place, name="teacher"):
    return load_file(place / "first" / name / "model.safetensors")


def assert_same(module, tensors):
    assert {*module.state_dict()} == {*tensors}
    assert all(torch.equal(value, tensors[name]) for name, value in module.state_dict().items())


def differ(one, other):
    return [n for n, value in one.state_dict().items() if not torch.equal(value, other.state_dict()[n])]


@pytest.mark.parametrize("rule", ["EMA", "Copy"])
@pytest.mark.parametrize("init", ["copy", "independent"])
def test_both_networks_start_from_the_weights_and_heads_afresh(place, init, rule):
    words = ["--method.init", init, "--method.teacher", rule]
    run, fresh = start(place, "--method.init_from", str(place / "first"), *words), start(place, *words)
    for name in ("student", "teacher"):
        branch, other = run.branches()[name], fresh.branches()[name]
        assert_same(branch.backbone.model, weights(place))
        assert differ(branch.head, other.head) == []
        assert differ(branch.backbone, other.backbone)
    assert bool(differ(run.model.student.head, run.model.teacher.head)) == (init == "independent" and rule == "EMA")
    assert differ(run.untrained, fresh.model.student.backbone) == []
    assert fresh.untrained is None


@pytest.mark.parametrize("words", [["--method.init_from.network", "student"], []])
def test_the_students_backbone_on_request(place, words):
    where = place / "first" if words else place / "first" / "student"
    run = start(place, "--method.init_from", str(where), *words)
    assert_same(run.model.teacher.backbone.model, weights(place, "student"))


def test_it_says_what_it_took(place, tmp_path):
    theirs = weights(place)
    whole = len(theirs)
    stem, file = theirs.pop("conv1.weight"), tmp_path / "a.safetensors"
    save_file({**theirs, "conv1.weight": stem[:, :, :1, :1].contiguous(), "fc.weight": stem}, file)
    words = ["--method.init_from.partial", "[conv1]", "--data.mean", "[0.1, 0.1, 0.1]"]
    said = start(place, "--method.init_from", str(file), *words).said.splitlines()
    assert said[2:6] == [
        f"init_from: the backbone of {file} (plain layout): {whole - 1} of {whole} tensors of the backbone",
        "  start afresh: conv1.weight",
        "  not used: fc (1)",
        "  the head starts afresh",
    ]
    said = start(place, "--method.init_from", str(place / "first"), *words[2:]).said.splitlines()
    assert said[4].startswith("  its images had mean 0.485 0.456 0.406 and std 0.229 0.224 0.225, not the recipe's")


@pytest.mark.parametrize(
    ("kind", "ours", "local", "said"),
    [
        ("full.pth", "timm", 16, "timm does; as DINO's own code does with --method.backbone.positions dino"),
        ("backbone.pth", "timm", 16, "timm does; as DINO's own code does with --method.backbone.positions dino"),
        ("dino", "timm", 16, "timm does; as DINO's own code does with --method.backbone.positions dino"),
        ("timm", "dino", 16, "DINO's own code does; as timm does with --method.backbone.positions timm"),
        ("full.pth", "timm", 48, None),
        ("full.pth", "dino", 16, None),
        ("dino", "dino", 16, None),
        ("timm", "timm", 16, None),
        ("moco.pth", "timm", 16, None),
        ("afresh.pth", "timm", 16, None),
    ],
)
def test_it_says_by_which_rule_positions_are_resampled_if_not_by_the_weights_own(
    place, kind, ours, local, said, tmp_path
):
    made = TimmBackbone("test_vit", model_args={"img_size": 48, "patch_size": 8, "depth": 1}, positions="dino")
    state = made.model.state_dict()
    files = {
        "full.pth": {"teacher": {f"backbone.{name}": value for name, value in state.items()}},
        "backbone.pth": state,
        "moco.pth": {"state_dict": {f"module.base_encoder.{name}": value for name, value in state.items()}},
        "afresh.pth": {name: value for name, value in state.items() if name != "pos_embed"},
    }
    weights, recipe = tmp_path / kind, tmp_path / "vit.yaml"
    vit = "{TimmBackbone: {name: test_vit, model_args: {img_size: 32, patch_size: 8, depth: 1}}}\n  head:"
    recipe.write_text(re.sub(r"backbone:.*?head:", f"backbone: {vit}", RECIPE, flags=re.DOTALL))
    if kind in files:
        torch.save(files[kind], weights)
    else:
        made.positions = kind
        made.save(weights)
    # The file's grid is that of 48 px, the backbone's own that of 32 px.
    size = max(32, local)
    views = f"{{MultiCrop: {{global_size: {size}, canvas_size: {size}, num_local_views: 2, local_size: {local}}}}}"
    words = ["--method.backbone.positions", ours, "--views", views, "--method.init_from", str(weights)]
    words += ["--method.init_from.partial", "[pos_embed]"]
    lines = [line for line in start(place, *words, recipe=recipe).said.splitlines() if "views of" in line]
    assert lines == (
        [] if said is None else [f"  views of 16, 32 px: positions of 6 x 6 patches are resampled as {said}"]
    )


def rows(run):
    return {(row["network"], row["step"]): row["metrics"] for row in run.results}


@pytest.fixture(scope="module")
def continued(place):
    """Return a run that goes on from ``first`` with other images' order, undisturbed."""
    with plugins.using([place / "stop.py"]):
        return go(place, place / "continued", "--seed", "7", "--method.init_from", str(place / "first"))


def test_the_weights_are_measured_at_step_0_beside_untrained_ones(place, continued):
    fresh = go(place, place / "fresh", "--seed", "7", "--optimization.steps", "1")
    measured = rows(continued)
    assert [*measured] == [("untrained", 0), ("init_from", 0), ("teacher", 6)]
    assert measured["untrained", 0] == rows(fresh)["untrained", 0]
    end = json.loads((place / "first" / "results.json").read_text())[-1]
    assert (end["network"], end["metrics"]) == ("teacher", measured["init_from", 0])


@pytest.mark.parametrize("step", [0, 3])
def test_a_run_that_goes_on_needs_the_weights_no_more(place, continued, step, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(place / "first", moved)
    words = ["--seed", "7", "--method.init_from", str(moved)]
    stopped = go(place, tmp_path / "run", *words, "--runtime.callbacks", f"[{{Stop: {{step: {step}}}}}]")
    assert (stopped.interrupted, stopped.clock.step) == (True, step)
    shutil.rmtree(moved)
    recipe = tmp_path / "run" / "recipe.yaml"
    run = go(place, tmp_path / "run", "--runtime.callbacks", "[]", resume=True, recipe=recipe)
    assert rows(run) == rows(continued)
    assert "init_from" not in run.said
    for name in ("student", "teacher"):
        assert differ(run.branches()[name], continued.branches()[name]) == []


def test_a_run_is_told_by_its_weights_and_not_by_where_they_lie(place, continued, tmp_path):
    shutil.copytree(place / "first" / "teacher", tmp_path / "copy")
    again = start(place, "--method.init_from", str(tmp_path / "copy"))
    assert again.record.identity == continued.record.identity
    others = [["--method.init_from", str(place / "first" / "student")], []]
    assert len({continued.record.identity, *(start(place, *words).record.identity for words in others)}) == 3
    said = yaml.safe_load(again.record.recipe)["method"]["init_from"]
    assert said["weights"] == str(tmp_path / "copy")
    assert load_fingerprint(continued) == said["fingerprint"]
    with pytest.raises(SSLKitError, match="holds the run of another recipe"):
        go(place, place / "continued", "--seed", "7", *others[0], resume=True)
    go(place, place / "continued", "--seed", "7", "--method.init_from", str(tmp_path / "copy"), resume=True)


def load_fingerprint(run):
    return yaml.safe_load((run.folder.path / "recipe.yaml").read_text())["method"]["init_from"]["fingerprint"]


def test_other_weights_than_the_recipe_was_written_with_are_refused(place, tmp_path):
    recipe, student = place / "continued.yaml", str(place / "first" / "student")
    recipe.write_text(start(place, "--method.init_from", str(place / "first")).record.recipe)
    with pytest.raises(RecipeError, match=r"method\.init_from\.fingerprint: .*student holds other weights than the "):
        start(place, "--method.init_from.weights", student, recipe=recipe)
    start(place, "--method.init_from.weights", student, "--method.init_from.fingerprint", "null", recipe=recipe)
    # The short form says all that there is to say.
    start(place, "--method.init_from", student, recipe=recipe)


def test_heads_continue_on_request(place):
    state = load_file(max((place / "first").glob("checkpoints/step-*")) / "state.safetensors")
    for network in ("teacher", "student"):
        words = ["--method.init_from.network", network, "--method.init_from.heads", "true"]
        run = start(place, "--method.init_from", str(place / "first"), *words)
        begin = f"model.{network}.head."
        theirs = {name.removeprefix(begin): value for name, value in state.items() if name.startswith(begin)}
        assert_same(run.model.student.head, theirs)
        assert_same(run.model.teacher.head, theirs)
    assert f"  head ({len(theirs)}) taken too" in run.said
    plain = start(place, "--method.init_from", str(place / "first"))
    assert run.record.identity != plain.record.identity


def test_a_predictor_continues_too(place):
    byol = ["--method.predictor", "MLPPredictor", "--method.teacher", "Copy"]
    go(place, place / "byol", *byol, "--optimization.steps", "1", "--evaluation.evaluators", "[]")
    run = start(place, "--method.init_from", f"{{weights: {place / 'byol'}, heads: true}}", *byol)
    fresh = start(place, "--method.init_from", str(place / "byol"), *byol)
    assert differ(run.model.student.predictor, fresh.model.student.predictor)
    with pytest.raises(RecipeError, match=r"method\.head and method\.predictor are not those of .*first: predictor\."):
        start(place, "--method.init_from", f"{{weights: {place / 'first'}, heads: true}}", *byol)


def official(path, backbone, head, num_prototypes=16, **changes):
    """Write a checkpoint as DINO's own code does, head and center of the shapes of the tiny recipe."""
    names = {"projector": "mlp", "prototypes": "last_layer"}
    state = {}
    for network, prefix in (("teacher", ""), ("student", "module.")):
        theirs = {name: torch.randn_like(tensor) for name, tensor in head.state_dict().items()} | changes
        state[network] = {f"{prefix}backbone.{name}": tensor for name, tensor in backbone.items()}
        for name, tensor in theirs.items():
            part, _, rest = name.partition(".")
            state[network][f"{prefix}head.{names[part]}.{rest}"] = tensor
    state |= {"epoch": 3, "args": argparse.Namespace(arch="resnet18"), "optimizer": {"state": {}, "param_groups": []}}
    torch.save({**state, "dino_loss": {"center": torch.randn(1, num_prototypes)}}, path)
    return state


@pytest.mark.parametrize("network", [None, "student"])
def test_the_head_and_the_center_of_an_official_checkpoint(place, network, tmp_path):
    file = tmp_path / "checkpoint.pth"
    theirs = official(file, weights(place), start(place).model.student.head)
    words = ["--method.init_from", f"{{weights: {file}, heads: true, network: {network or 'null'}}}"]
    run = start(place, *words)
    prefix = "module.head." if network == "student" else "head."
    expected = {n.removeprefix(prefix): t for n, t in theirs[network or "teacher"].items() if n.startswith(prefix)}
    for branch in (run.model.student, run.model.teacher):
        state = branch.head.state_dict()
        assert len(state) == len(expected)
        for name, tensor in expected.items():
            ours = name.replace("mlp.", "projector.").replace("last_layer.", "prototypes.")
            assert torch.equal(state[ours], tensor)
    center = torch.load(file, weights_only=False)["dino_loss"]["center"]
    assert torch.equal(run.model.collapse.center, center[0])
    assert f"  head ({len(expected)}), collapse (1) taken too" in run.said
    assert "dino_loss" not in run.said
    fresh = start(place, "--method.init_from", str(file))
    assert fresh.model.collapse.center.eq(0).all()
    assert "dino_loss.center (1)" in fresh.said
    assert run.record.identity != fresh.record.identity


def test_a_center_that_the_method_has_not_is_left(place, tmp_path):
    file = tmp_path / "checkpoint.pth"
    official(file, weights(place), start(place).model.student.head)
    words = ["--method.init_from", f"{{weights: {file}, heads: true}}", "--method.collapse", "SinkhornKnopp"]
    run = start(place, *words)
    assert " taken too" in run.said
    assert "not used: student.backbone" in run.said
    assert "collapse (1)" in next(line for line in run.said.splitlines() if "not used" in line)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"projector.0.bias": torch.ones(3)}, r"are not those of .*checkpoint\.pth: head\.projector\.0\.bias"),
        ({"projector.9.bias": torch.ones(3)}, r"are not those of .*checkpoint\.pth: head\.projector\.9\.bias"),
        ({"projector.0.bias": torch.full((8,), torch.nan)}, r"not finite: head\.projector\.0\.bias"),
        ({"projector.0.bias": torch.ones(8, dtype=torch.int8)}, r"dtype int8, .*: head\.projector\.0\.bias"),
    ],
)
def test_heads_of_a_file_that_do_not_fit_are_refused(place, changes, said, tmp_path):
    file = tmp_path / "checkpoint.pth"
    official(file, weights(place), start(place).model.student.head, **changes)
    with pytest.raises(RecipeError, match=rf"method\.init_from: heads: .*{said}"):
        start(place, "--method.init_from", f"{{weights: {file}, heads: true}}")


def test_a_file_without_a_head_is_refused(place, tmp_path):
    save_file(weights(place), tmp_path / "plain.safetensors")
    with pytest.raises(RecipeError, match="has no head whose names are known; files of DINO, MoCo and SwAV have"):
        start(place, "--method.init_from", f"{{weights: {tmp_path / 'plain.safetensors'}, heads: true}}")


@pytest.mark.parametrize("kind", ["code", "cyclic", "int8", "nan", "truncated", "overlap"])
def test_a_bad_file_is_one_message(place, kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file, said = make(kind, tmp_path)
    vit = "{TimmBackbone: {name: vit_tiny_patch16_224, model_args: {img_size: 32, depth: 1}}}\n  head:"
    recipe = place / "vit.yaml"
    recipe.write_text(re.sub(r"backbone:.*?head:", f"backbone: {vit}", RECIPE, flags=re.DOTALL))
    words = ["--method.init_from", str(file), "--run-dir", str(tmp_path / "run")]
    assert main(["train", str(recipe), *words]) == 2
    error = capsys.readouterr().err
    assert f"method.init_from: {'the backbone of ' if kind in ('int8', 'nan') else ''}{file}" in error
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method.init_from", "nowhere"], "method.init_from: there are no weights nowhere: give timm:NAME"),
        (["--method.init_from", "3"], "method.init_from is a section with keys weights, network, partial, heads"),
        (["--method.init_from.network", "teacher"], "method.init_from.weights is missing: it must be text"),
        (["--method.init_from", "{weights: FIRST, netwrk: student}"], "Did you mean 'network'"),
        (
            ["--method.init_from", "{weights: FIRST, partial: [conv9]}"],
            "method.init_from: partial: no weight is called",
        ),
        (["--method.init_from", "{weights: FIRST/teacher, heads: true}"], "--method.init_from.heads false"),
        (
            ["--method.init_from", "{weights: FIRST, heads: true}", "--method.head.num_prototypes", "8"],
            "method.head and method.predictor are not those of",
        ),
        (["--method.init_from", "FIRST", "--method.backbone.name", "resnet50"], "method.init_from: the teacher of"),
        (["--optimization.lr_scale.backbone", "0"], "optimization.lr_scale.backbone is above 0, not 0"),
        (["--optimization.lr_scale.backbon", "1"], "Did you mean 'backbone'"),
        (["--optimization.lr_scale.predictor", "2"], "--optimization.lr_scale.predictor null"),
    ],
)
def test_what_cannot_start_ends_in_one_message_before_anything_is_written(place, words, said, tmp_path, capsys):
    words = [word.replace("FIRST", str(place / "first")) for word in words]
    assert main(["train", str(place / "tiny.yaml"), "--run-dir", str(tmp_path / "run"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_parts_learn_at_their_share_of_the_rate(place):
    words = ["--optimization.lr_scale", "{backbone: 0.1, projector: null, prototypes: 3}"]
    run = start(place, *words)
    scales = {id(p): group["lr_scale"] for group in run.optimizer.param_groups for p in group["params"]}
    for name, scale in {"backbone": 0.1, "projector": 1.0, "prototypes": 3}.items():
        moving = [p for p in run.model.student.part(name).parameters() if p.requires_grad]
        assert {scales.pop(id(p)) for p in moving} == {scale}
    assert not scales


PAGE = (Path(__file__).parents[2] / "docs" / "continue.md").read_text(encoding="utf-8")


def block(language):
    return re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]


def test_the_pages_commands_and_recipe_are_recipes(place, monkeypatch):
    for line in block("sh").splitlines():
        _, _, name, *words = shlex.split(line)
        assert load(name, words).root.at("method.init_from.weights") == words[-1]
    monkeypatch.chdir(place)
    (place / "runs").mkdir()
    (place / "runs" / "first").symlink_to(place / "first")
    recipe = place / "page.yaml"
    recipe.write_text(block("yaml").replace("base: quickstart", "base: ./tiny.yaml"))
    run = start(place, "--data.train.num_images", "16", recipe=recipe)
    assert_same(run.model.teacher.backbone.model, weights(place))


def test_the_pages_code_prints_the_pages_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vit = timm.create_model("vit_small_patch16_224", num_classes=0).state_dict()
    head = {f"head.mlp.{i}.{kind}": torch.ones(1) for i in (0, 2, 4) for kind in ("weight", "bias")}
    head |= {f"head.last_layer.weight_{kind}": torch.ones(1) for kind in "gv"}
    teacher = {f"backbone.{name}": value for name, value in vit.items()} | head
    student = {f"module.{name}": value for name, value in teacher.items()}
    others = {"epoch": 100, "args": argparse.Namespace(arch="vit_small"), "dino_loss": {"center": torch.zeros(1, 4)}}
    file, names = "dino_deitsmall16_pretrain_full_checkpoint.pth", {}
    torch.save({"student": student, "teacher": teacher, **others}, file)
    exec(block("python"), names)
    assert list(Start(names["read_weights"](file), names["found"], {}).report(None)) == block("text").splitlines()
    assert torch.equal(names["backbone"].model.norm.weight, vit["norm.weight"])
