"""A checkpoint holds everything that the next step reads, and survives what happens to disks."""

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sslkit.checkpoint import files
from sslkit.checkpoint.files import NUMBERS, TENSORS, Progress, load_newest, save_checkpoint
from sslkit.clock import Clock
from sslkit.collapse import Centering
from sslkit.errors import SSLKitError
from sslkit.losses import CrossEntropy
from sslkit.method.executor import Executor
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.optimizers.adamw import AdamW
from sslkit.optimizers.parameter_groups import parameter_groups
from sslkit.teachers import EMA, Copy, PreviousEpoch
from sslkit.training.accelerated import AccelerateExecutor


@pytest.fixture
def make(tiny):
    """Return a maker of a model in the channels-last layout that training uses, and its optimizer."""

    def make(rule=EMA, seed=0, optimizer="AdamW", num_prototypes=11):
        torch.manual_seed(seed)
        student = tiny.branch(num_prototypes, dtype=torch.float32)
        model = StudentTeacher(
            student, teacher_update=rule(), collapse=Centering(num_prototypes), loss=CrossEntropy()
        ).to(memory_format=torch.channels_last)
        groups = parameter_groups(student)
        if optimizer == "AdamW":
            return model, AdamW().build(groups)
        return model, torch.optim.SGD(groups, lr=0.1, momentum=0.9)

    return make


def state_dict(model, optimizer):
    return Executor().state_dict(model, optimizer)


def steps(model, optimizer, tiny, first, last, frozen=()):
    for step in range(first, last):
        torch.manual_seed(step)
        views = tiny.views(num_local=1, dtype=torch.float32)
        train_step(model, views, optimizer, Clock(step, 10, 3), frozen=frozen)


def state_of(model, optimizer):
    flat = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        flat |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    return flat


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(b[name])), name


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
@pytest.mark.parametrize("rule", [EMA, Copy, PreviousEpoch])
def test_what_is_restored_goes_on_bit_for_bit(make, tiny, tmp_path, rule, optimizer):
    model, optim = make(rule, optimizer=optimizer)
    steps(model, optim, tiny, 0, 2)
    save_checkpoint(tmp_path, state_dict(model, optim), Progress(2, "me"), keep=1)
    saved = {name: value.clone() for name, value in state_of(model, optim).items()}
    steps(model, optim, tiny, 2, 5)

    other, of_other = make(rule, seed=1, optimizer=optimizer)
    assert load_newest(tmp_path, other, of_other, "me") == 2
    assert_same(state_of(other, of_other), saved)
    steps(other, of_other, tiny, 2, 5)
    assert_same(state_of(other, of_other), state_of(model, optim))
    assert (other.teacher is other.student) == (rule is Copy)


def test_moments_lie_in_memory_as_their_parameters_do(make, tiny, tmp_path):
    """torch's fused AdamW on a CPU walks moments and parameters as flat memory, whatever their strides."""
    model, optim = make()
    steps(model, optim, tiny, 0, 1)
    save_checkpoint(tmp_path, state_dict(model, optim), Progress(1, ""), keep=1)
    other, of_other = make(seed=1)
    load_newest(tmp_path, other, of_other, "")
    weight = other.student.backbone.conv.weight
    assert not weight.is_contiguous()
    assert of_other.state[weight]["exp_avg"].stride() == weight.stride()


def test_parameters_that_never_moved_have_no_moments(make, tiny, tmp_path):
    model, optim = make()
    steps(model, optim, tiny, 0, 2, frozen=["prototypes"])
    path = save_checkpoint(tmp_path, state_dict(model, optim), Progress(2, ""), keep=1)
    other, of_other = make(seed=1)
    load_newest(tmp_path, other, of_other, "")
    assert_same(state_of(other, of_other), state_of(model, optim))
    assert len(of_other.state) == len(list(model.student.parameters())) - 1
    assert sorted(file.name for file in path.iterdir()) == sorted([TENSORS, NUMBERS])


def test_the_newest_are_kept(make, tmp_path):
    model, optim = make()
    for step in (1, 5, 30, 200):
        save_checkpoint(tmp_path, state_dict(model, optim), Progress(step, ""), keep=2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000000030", "step-000000200"]
    assert load_newest(tmp_path, model, optim, "") == 200


def test_no_checkpoint_is_no_error(make, tmp_path):
    assert load_newest(tmp_path / "nothing", *make(), "") is None


def test_what_a_crash_left_is_never_read_and_goes_with_the_next(make, tmp_path):
    model, optim = make()
    newest = save_checkpoint(tmp_path, state_dict(model, optim), Progress(3, ""), keep=2)
    shutil.copytree(newest, tmp_path / ".step-000000009.tmp")
    assert load_newest(tmp_path, model, optim, "") == 3
    save_checkpoint(tmp_path, state_dict(model, optim), Progress(4, ""), keep=2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000000003", "step-000000004"]


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


DAMAGES = {
    "weights cut short": lambda path: truncate(path / TENSORS),
    "weights empty": lambda path: (path / TENSORS).write_bytes(b""),
    "weights missing": lambda path: (path / TENSORS).unlink(),
    "numbers cut short": lambda path: truncate(path / NUMBERS),
    "numbers without a step": lambda path: (path / NUMBERS).write_text("{}"),
    "numbers that are none": lambda path: (path / NUMBERS).write_text("[]"),
    "everything missing": lambda path: [file.unlink() for file in path.iterdir()],
    "a flipped bit": lambda path: flip(path / TENSORS),
    "another shape": lambda path: rewrite(path, {"model.collapse.center": torch.zeros(12)}),
    "a foreign name": lambda path: rewrite(path, {"model.student.mask_token": torch.zeros(3)}),
    "a name of nobody's": lambda path: rewrite(path, {"scaler": torch.zeros(3)}),
    "a parameter too many": lambda path: rewrite(path, {"optimizer.99.exp_avg": torch.zeros(3)}),
    "a missing name": lambda path: rewrite(path, {"model.collapse.center": None}),
    "numbers missing": lambda path: (path / NUMBERS).unlink(),
    "numbers of no parameter": lambda path: say(path, optimizer={"x": {"step": 1}}),
    "moments in another order": lambda path: say(
        path, parameters=json.loads((path / NUMBERS).read_text())["parameters"][::-1]
    ),
    "a step that is none": lambda path: say(path, step="last"),
}


def flip(file):
    data = bytearray(file.read_bytes())
    data[-50] ^= 1
    file.write_bytes(data)


def rewrite(path, changes):
    """Write other tensors, with their right checksum."""
    tensors = load_file(path / TENSORS) | changes
    save_file({name: value for name, value in tensors.items() if value is not None}, path / TENSORS)
    say(path, sha256=hashlib.sha256((path / TENSORS).read_bytes()).hexdigest())


def say(path, **changes):
    said = json.loads((path / NUMBERS).read_text()) | changes
    (path / NUMBERS).write_text(json.dumps(said))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_reported_and_the_one_before_is_taken(make, tmp_path, caplog, damage):
    model, optim = make()
    save_checkpoint(tmp_path, state_dict(model, optim), Progress(3, "me"), keep=2)
    DAMAGES[damage](save_checkpoint(tmp_path, state_dict(model, optim), Progress(6, "me"), keep=2))
    other, of_other = make(seed=1)
    assert load_newest(tmp_path, other, of_other, "me") == 3
    assert_same(state_of(other, of_other), state_of(model, optim))
    [warning] = caplog.records
    assert "step-000000006 is damaged" in warning.message
    # A damaged one must not push a whole one out.
    save_checkpoint(tmp_path, state_dict(other, of_other), Progress(4, "me"), keep=1)
    assert load_newest(tmp_path, other, of_other, "me") == 4
    assert "damaged-step-000000006" in {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"step": 70}, "state.json is not what was written"),
        ({"optimizer": {"0": {"step": 9}}}, "state.json is not what was written"),
        # As in checkpoints of earlier versions, without a hash.
        ({"step": 70, "json_sha256": None}, "state.json is that of step 70"),
        ({"step": -5, "json_sha256": None}, "its step is -5"),
        ({"step": 3.7, "json_sha256": None}, "its step is 3.7"),
        ({"step": "6", "json_sha256": None}, "its step is '6'"),
    ],
)
def test_a_changed_number_is_damage_and_does_not_resume_to_other_weights(make, tmp_path, caplog, change, reason):
    model, optim = make()
    save_checkpoint(tmp_path, state_dict(model, optim), Progress(3, "me"), keep=2)
    file = save_checkpoint(tmp_path, state_dict(model, optim), Progress(6, "me"), keep=2) / NUMBERS
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert load_newest(tmp_path, *make(), "me") == 3
    assert reason in caplog.text


def test_a_run_does_not_start_over_because_all_are_damaged(make, tmp_path):
    model, optim = make()
    truncate(save_checkpoint(tmp_path, state_dict(model, optim), Progress(3, ""), keep=2) / TENSORS)
    for _ in range(2):
        with pytest.raises(SSLKitError, match="none of 1 checkpoints is whole"):
            load_newest(tmp_path, model, optim, "")


def test_another_recipes_checkpoint_is_refused_and_nothing_loaded(make, tmp_path):
    save_checkpoint(tmp_path, state_dict(*make()), Progress(3, "me"), keep=2)
    other, of_other = make(seed=1)
    before = {name: value.clone() for name, value in state_of(other, of_other).items()}
    with pytest.raises(SSLKitError, match="written by another recipe"):
        load_newest(tmp_path, other, of_other, "you")
    assert_same(state_of(other, of_other), before)


def test_another_model_is_refused_by_name_and_nothing_loaded(make, tmp_path):
    save_checkpoint(tmp_path, state_dict(*make()), Progress(3, ""), keep=2)
    other, of_other = make(num_prototypes=12, seed=1)
    before = {name: value.clone() for name, value in state_of(other, of_other).items()}
    with pytest.raises(SSLKitError, match=r"does not fit the model: model\.collapse\.center, model\.student\.head\."):
        load_newest(tmp_path, other, of_other, "")
    assert_same(state_of(other, of_other), before)


def test_a_checkpoint_is_plain_safetensors_and_json(make, tiny, tmp_path):
    model, optim = make()
    steps(model, optim, tiny, 0, 1)
    path = save_checkpoint(tmp_path, state_dict(model, optim), Progress(1, "me"), keep=1)
    numbers = json.loads((path / NUMBERS).read_text())
    assert (numbers["step"], numbers["identity"]) == (1, "me")
    assert (path / TENSORS).read_bytes()[8:9] == b"{"


def test_checkpoints_without_a_checksum_are_read(make, tmp_path):
    """Those of earlier versions."""
    model, optim = make()
    path = save_checkpoint(tmp_path, state_dict(model, optim), Progress(3, ""), keep=2)
    said = json.loads((path / NUMBERS).read_text())
    (path / NUMBERS).write_text(json.dumps({name: said[name] for name in ("step", "identity", "optimizer")}))
    assert load_newest(tmp_path, *make(seed=1), "") == 3


def test_a_checkpoint_has_its_name_only_once_it_is_on_the_disk(make, tmp_path, monkeypatch):
    """And what is removed for it goes last."""
    done, rename = [], Path.rename
    monkeypatch.setattr(files, "sync", lambda path: done.append(("sync", path.name)))
    monkeypatch.setattr(Path, "rename", lambda path, to: done.append((path.name, to.name)) or rename(path, to))
    model, optim = make()
    for step in (3, 6):
        done.clear()
        save_checkpoint(tmp_path, state_dict(model, optim), Progress(step, ""), keep=1)
    temporary = ".step-000000006.tmp"
    assert sorted(done[:2]) == [("sync", NUMBERS), ("sync", TENSORS)]
    assert done[2:] == [
        ("sync", temporary),
        (temporary, "step-000000006"),
        ("sync", tmp_path.name),
        ("step-000000003", ".step-000000003.tmp"),
    ]


def test_the_optimizers_parameters_are_named(make, tmp_path):
    model, optim = make()
    folder = save_checkpoint(tmp_path, state_dict(model, optim), Progress(3, ""), keep=1)
    said = json.loads((folder / NUMBERS).read_text())
    named = dict(model.named_parameters())
    assert [named[name] for name in said["parameters"]] == [p for group in optim.param_groups for p in group["params"]]


def test_older_ones_can_be_asked_for(make, tmp_path):
    model, optim = make()
    for step in (3, 6, 20):
        save_checkpoint(tmp_path, state_dict(model, optim), Progress(step, ""), keep=9)
    found = [load_newest(tmp_path, model, optim, "", before=before) for before in (None, 20, 7, 6, 3, 0)]
    assert found == [20, 6, 6, 3, None, None]


def test_what_finds_no_room_leaves_the_others_and_nothing_of_itself(make, tmp_path, monkeypatch):
    model, optim = make()
    save_checkpoint(tmp_path, state_dict(model, optim), Progress(3, ""), keep=1)

    def half(tensors, path):
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(files, "save_file", half)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, state_dict(model, optim), Progress(6, ""), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000003"]
    assert load_newest(tmp_path, model, optim, "") == 3


def test_a_kill_while_an_old_one_is_removed_leaves_nothing_that_looks_damaged(make, tmp_path, monkeypatch, caplog):
    model, optim = make()
    save_checkpoint(tmp_path, state_dict(model, optim), Progress(3, ""), keep=1)

    def killed(path):
        (path / NUMBERS).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(files.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, state_dict(model, optim), Progress(6, ""), keep=1)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-000000006"]
    save_checkpoint(tmp_path, state_dict(model, optim), Progress(9, ""), keep=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000006", "step-000000009"]
    assert caplog.records == []


def test_the_scale_of_fp16_is_resumed(make, tmp_path):
    def scaled(scale):
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        scaler.scale(torch.ones(()))
        return AccelerateExecutor(SimpleNamespace(num_processes=1, scaler=scaler))

    model, optim = make()
    save_checkpoint(tmp_path, scaled(32.0).state_dict(model, optim), Progress(3, ""), 1)
    fresh = scaled(65536.0)
    load_newest(tmp_path, model, optim, "", fresh)
    assert fresh.scale() == 32
    # A run in another precision has none to resume.
    save_checkpoint(tmp_path, state_dict(model, optim), Progress(6, ""), 1)
    load_newest(tmp_path, model, optim, "", fresh)
    assert fresh.scale() == 32
