"""The blocks of docs/python.md, run in order as a reader would, and what each must have done."""

import copy
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from rich.console import Console
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import sslkit
from sslkit.launch import train
from sslkit.method import step as step_module
from sslkit.recipe import load

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
METHODS = ["DINO", "BYOL", "MoCo-v2", "SwAV"]
OTHERS = ["Mix", "A loss or a network of your own", "Mixed precision"]

DINO = """
method:
  backbone: {TimmBackbone: {name: test_resnet}}
  head: {DINOHead: {num_prototypes: 1024, hidden_dim: 256, embed_dim: 64, batch_norm: true}}
  teacher: {EMA: {momentum: {Cosine: {start: 0.99, end: 1.0}}}}
  collapse: {Centering: {temperature: {Warmup: {start: 0.04, end: 0.07, over: 1 epochs}}}}
  loss: {CrossEntropy: {temperature: 0.1}}
views: {MultiCrop: {crop_on: device, canvas_size: 32, global_size: 32, num_local_views: 4, local_size: 16}}
data: {train: {Textures: {num_images: 96}}, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}
optimization:
  optimizer: AdamW
  batch_size: 32
  epochs: 1
  lr: {Cosine: {start: 0.002, end: 1.0e-6, warmup: 1 epochs}}
  weight_decay: {Cosine: {start: 0.04, end: 0.4}}
  clip_grad_norm: 3.0
  freeze: {prototypes: 1 epochs}
precision: fp32
runtime: {device: cpu, log_every: 1, num_workers: 0}
"""
"""The page's DINO as a recipe, three steps long."""


class Page:
    """The page's names, the steps that its blocks took, and what was there before each block, by heading."""

    def __init__(self, monkeypatch):
        self.names, self.steps, self.before, self.heading = {}, {}, {}, ""
        # The page imports the function from here when it needs it.
        monkeypatch.setattr(step_module, "train_step", self.watched(step_module.train_step))

    def watched(self, train_step):
        def step(model, *arguments, **options):
            before = state_of(model)
            output = train_step(model, *arguments, **options)
            taken = SimpleNamespace(model=model, before=before, after=state_of(model), loss=output.loss.item())
            self.steps.setdefault(self.heading, []).append(taken)
            return output

        return step

    def run(self, headings=None):
        for self.heading, code in blocks():
            if headings is None or self.heading in headings:
                kept = {
                    name: self.names[name] for name in ("swav", "model", "optimizer", "clock") if name in self.names
                }
                self.before[self.heading] = SimpleNamespace(random=torch.get_rng_state(), **copy.deepcopy(kept))
                exec(code, self.names)
        return self


def blocks():
    """Yield heading and code of each Python block; line numbers in tracebacks are those of the page."""
    text, heading = PAGE.read_text(encoding="utf-8"), ""
    for found in re.finditer(r"^## ([^\n]*)$|^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if found[1]:
            heading = found[1]
        else:
            yield heading, compile("\n" * text[: found.start(2)].count("\n") + found[2], str(PAGE), "exec")


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal_states(ours, theirs):
    torch.testing.assert_close(state_of(ours), state_of(theirs), rtol=0, atol=0)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("page"))
        torch.manual_seed(0)
        page = Page(monkeypatch).run()
        page.folder = Path.cwd()
        yield page


@pytest.mark.parametrize("page", sorted(PAGE.parent.glob("*.md")), ids=lambda page: page.name)
def test_links_of_the_docs_lead_somewhere(page):
    links = re.findall(r"\]\(((?!http)[^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_step_of_the_page_has_a_finite_loss(page):
    assert list(page.steps) == METHODS + OTHERS
    assert all(math.isfinite(step.loss) for steps in page.steps.values() for step in steps)


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_and_state_of_a_method_moves(page, method):
    steps = page.steps[method]
    assert len(steps) == page.names["epochs"] * len(page.names["loader"])
    moved = {name for step in steps for name, old in step.before.items() if not torch.equal(step.after[name], old)}
    # A batch norm undoes the bias before it, whose gradient is rounding noise.
    undone = re.compile(r"(projector\.[03]|predictor\.layers\.0)\.bias")
    still = {name for name in {*steps[0].after} - moved if not undone.search(name)}
    fixed = {"student.head.prototypes.weight_g", "teacher.head.prototypes.weight_g"}
    assert still == (fixed if method == "DINO" else set())


@pytest.mark.parametrize("method", METHODS)
def test_a_teacher_that_follows_is_neither_its_start_nor_the_student(page, method):
    steps = page.steps[method]
    model, start = steps[0].model, steps[0].before
    assert (model.teacher is model.student) == (method == "SwAV")
    if method != "SwAV":
        weights = dict(model.teacher.backbone.named_parameters())
        assert not any(torch.equal(value, model.student.backbone.get_parameter(n)) for n, value in weights.items())
        assert not any(torch.equal(value, start[f"teacher.backbone.{n}"]) for n, value in weights.items())


def test_the_page_trains_as_the_recipe_does(tmp_path, monkeypatch):
    (tmp_path / "dino.yaml").write_text(DINO)
    run = train(load(tmp_path / "dino.yaml"), tmp_path / "run", console=Console(quiet=True))
    page = Page(monkeypatch).run(["Images and views"])
    pictures = TensorDataset(page.names["pictures"], page.names["textures"].keys)
    order = [run.batches().indices(step) for step in range(3)]
    page.names |= {"epochs": 1, "loader": DataLoader(pictures, batch_sampler=order)}
    torch.manual_seed(0)
    page.run(["DINO"])
    losses = [step.loss for step in page.steps["DINO"]]
    assert losses == pytest.approx([row["loss"] for row in run.metrics], rel=1e-6)
    assert len({*losses}) == 3


def test_the_table_of_methods_can_be_built():
    text = PAGE.read_text(encoding="utf-8")
    rows = [
        [cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ]
    rows = {row[0]: row[1:] for row in rows}
    assert rows[""] == METHODS
    names = {name: getattr(sslkit, name) for name in sslkit.__all__} | {"F": 96}
    for column, method in enumerate(METHODS):
        cells = {key: cell[column] for key, cell in rows.items() if key not in ("", "---", "optimizer")}
        slots = {key: eval(cell, names) if cell else None for key, cell in cells.items()}
        branch = sslkit.Branch(sslkit.TimmBackbone("test_resnet"), slots.pop("head"), slots.pop("predictor"))
        assert sslkit.StudentTeacher(branch, **slots), method


def test_the_measured_backbone_was_saved_for_timm(page):
    backbone = page.names["dino"].teacher.backbone
    saved = timm.create_model(f"local-dir:{page.folder / 'dino-teacher'}", pretrained=True, num_classes=0).train()
    images = page.names["pictures"][:2] / 255
    torch.testing.assert_close(saved(images), backbone(images).cls)


def test_the_saved_file_goes_on_as_if_nothing_had_happened(page):
    """Everything is in the file: model and optimizer are built afresh, and all numbers are other ones before."""
    now, views = page.before["Save and go on"], page.names["multi_crop"](page.names["pictures"][:32], torch.arange(32))
    other = copy.deepcopy(now.swav)
    for tensor in other.state_dict().values():
        tensor.fill_(3)
    optimizer = sslkit.LARC().build(sslkit.parameter_groups(other.student, decays_vectors=True))
    saved = torch.load(page.folder / "swav.pt")
    other.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    assert saved["step"] == now.clock.step > 0
    losses = {
        sslkit.train_step(*parts, now.clock).loss.item()
        for parts in ((now.swav, views, now.optimizer), (other, views, optimizer))
    }
    assert len(losses) == 1
    assert_equal_states(other, now.swav)


def test_the_step_of_ones_own_is_the_step(page):
    before, after = page.before["A step of your own"], page.before["Mixed precision"]
    torch.set_rng_state(before.random)
    views = page.names["multi_crop"](page.names["pictures"][:32])
    output = sslkit.train_step(before.model, views, torch.optim.AdamW(before.model.student.parameters()))
    assert output.loss == page.names["by_hand"]
    assert_equal_states(after.model, before.model)


def test_mixed_precision_changes_rounding_alone(page):
    before = page.before["Mixed precision"]
    torch.set_rng_state(before.random)
    views = page.names["multi_crop"](page.names["pictures"][:32])
    loss = sslkit.train_step(before.model, views, before.optimizer).loss.item()
    assert 0 < abs(page.steps["Mixed precision"][0].loss - loss) < 0.02 * loss


def test_a_scaler_fits_into_an_executor(tiny):
    class Scaled(sslkit.Executor):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)

        def backward(self, loss):
            self.scaler.scale(loss).backward()

        def unscale(self, optimizer):
            self.scaler.unscale_(optimizer)
            self.scaler.update()

    plain = sslkit.StudentTeacher(
        tiny.branch(), teacher_update=sslkit.EMA(0.9), collapse=sslkit.Centering(11), loss=sslkit.CrossEntropy()
    )
    scaled, views = copy.deepcopy(plain), tiny.views()
    for model, executor in ((plain, None), (scaled, Scaled())):
        optimizer = torch.optim.SGD(model.student.parameters(), lr=0.1)
        sslkit.train_step(model, views, optimizer, clip=sslkit.Clip(0.01), executor=executor)
    assert_equal_states(scaled, plain)


def test_the_loss_of_ones_own_is_the_divergence(page):
    probabilities, logits = torch.randn(2, 5, 7).softmax(-1), torch.randn(3, 5, 7)
    targets = sslkit.Targets(probabilities, "probabilities", (0, 1))
    student = sslkit.Projection.of(logits=logits)
    entropy = -(probabilities * probabilities.log()).sum(-1).mean()
    expected = sslkit.CrossEntropy(0.1)(student, targets) - entropy
    torch.testing.assert_close(page.names["KLDivergence"]()(student, targets), expected)


def test_single_parts_answer_plain_tensors(page):
    names = page.names
    codes, mine = names["targets"].values, (names["student_logits"] / 0.1).log_softmax(-1)
    torch.testing.assert_close(codes.sum(-1), torch.ones(2, 64))
    torch.testing.assert_close(names["alone"], -(codes * mine.flip(0)).sum(-1).mean())
    key, query = F.normalize(names["key"].embedding[0], dim=-1), F.normalize(names["query"][0], dim=-1)
    assert torch.equal(names["queue"].queue[:64], key)
    assert names["queue"].pointer == 64
    # Of 4097 candidates at a temperature of 0.2, before the key was one of the negatives.
    assert math.log(4097) - 1 < names["contrast"] < math.log(4097) + 2
    assert query.shape == key.shape


def test_workers_prepare_pictures_of_several_sizes(page):
    names = page.names
    pictures = [names["prepared"].pictures[key] for key in names["keys"].tolist()]
    expected = names["crops"](pictures, names["keys"], epoch=1)
    assert [group.images.shape for group in expected.groups] == [(2, 8, 3, 64, 64), (2, 8, 3, 32, 32)]
    for ours, theirs in zip(names["views"].groups, expected.groups, strict=True):
        assert torch.equal(ours.images, theirs.images)
