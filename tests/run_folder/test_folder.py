"""A run folder says what the run was, refuses to be another one's, and is whole at every moment."""

import json

import pytest
import timm
import torch
from safetensors import SafetensorError

from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.contracts import Backbone
from sslkit.errors import SSLKitError
from sslkit.run_folder.folder import STACK, Record, RunFolder
from sslkit.types import Preprocessing

STATISTICS = Preprocessing(2, [0.5, 0.4], [0.2, 0.1], None, 32, 36)
RECORD = Record("some", "seed: 1\n", "abc", [{"name": "sslkit", "origin": "sslkit 0.1", "hooks": ["losses"]}])


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "runs" / "one")


def contents(path):
    return {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_new_folder_says_what_the_run_is(folder):
    folder.start(RECORD, STATISTICS, resume=False)
    assert sorted(path.name for path in folder.path.iterdir()) == ["data.json", "environment.json", "recipe.yaml"]
    assert (folder.path / "recipe.yaml").read_text() == "seed: 1\n"
    said = json.loads((folder.path / "environment.json").read_text())
    assert set(said) == {
        "recipe", "identity", "plugins", "versions", "python", "platform", "commit", "processor", "device",
        "precision", "gpu", "threads", "world_size",
    }  # fmt: skip
    assert (said["recipe"], said["identity"], said["plugins"]) == ("some", "abc", list(RECORD.plugins))
    assert set(said["versions"]) == set(STACK)
    assert said["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert (said["world_size"], said["threads"]) == (1, torch.get_num_threads())
    assert Preprocessing(**json.loads((folder.path / "data.json").read_text())) == STATISTICS


@pytest.mark.parametrize("name", ["recipe.yaml", "checkpoints"])
def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(folder, name):
    folder.path.mkdir(parents=True)
    (folder.path / name).write_text("kept")
    with pytest.raises(SSLKitError, match=r"already holds a run; add --resume"):
        folder.start(RECORD, STATISTICS, resume=False)
    assert {str(path): text for path, text in contents(folder.path).items()} == {name: b"kept"}


def test_a_folder_with_other_files_is_no_run(folder):
    folder.path.mkdir(parents=True)
    (folder.path / "notes.txt").write_text("kept")
    folder.start(RECORD, STATISTICS, resume=False)
    assert (folder.path / "notes.txt").read_text() == "kept"


def test_going_on_keeps_the_first_recipe(folder):
    folder.start(RECORD, STATISTICS, resume=True)
    folder.start(Record("some", "runtime: other\n", "abc"), STATISTICS, resume=True)
    assert (folder.path / "recipe.yaml").read_text() == "seed: 1\n"


def test_going_on_with_another_recipe_is_refused_and_changes_nothing(folder):
    folder.start(RECORD, STATISTICS, resume=False)
    before = contents(folder.path)
    with pytest.raises(SSLKitError, match="holds the run of another recipe"):
        folder.start(Record("some", "seed: 2\n", "xyz"), STATISTICS, resume=True)
    assert contents(folder.path) == before


@pytest.mark.parametrize("left", ["", "[1", "{}"])
def test_a_folder_that_does_not_say_whose_it_is_can_go_on(folder, left):
    folder.start(RECORD, STATISTICS, resume=False)
    (folder.path / "environment.json").write_text(left)
    folder.start(RECORD, STATISTICS, resume=True)
    assert json.loads((folder.path / "environment.json").read_text())["identity"] == "abc"


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SSLKitError, match=r"--run-dir: .* cannot be written: "):
        RunFolder(tmp_path / place).start(RECORD, STATISTICS, resume=False)
    assert (tmp_path / "file").read_text() == "kept"


class Writing(Backbone):
    """Writes a word, then perhaps breaks off."""

    def __init__(self, word, breaks=False):
        super().__init__()
        self.word, self.breaks = word, breaks

    def forward(self, images, mask=None):
        raise NotImplementedError

    def save(self, folder, preprocessing=None):
        (folder / "weights").write_text(self.word)
        if self.breaks:
            raise OSError("no space left")


class Unsaved(Writing):
    save = Backbone.save


def test_backbones_are_written_whole_or_not_at_all(folder):
    folder.path.mkdir(parents=True)
    folder.save_backbones({"teacher": Writing("a"), "student": Writing("b")})
    folder.save_backbones({"teacher": Writing("c")})
    with pytest.raises(OSError, match="no space left"):
        folder.save_backbones({"student": Writing("d", breaks=True)})
    assert [(folder.path / name / "weights").read_text() for name in ("teacher", "student")] == ["c", "b"]
    assert sorted(path.name for path in folder.path.iterdir()) == ["student", "teacher"]
    folder.save_backbones({"student": Writing("e")})
    assert sorted(path.name for path in folder.path.iterdir()) == ["student", "teacher"]


def test_backbones_are_written_with_how_the_runs_images_are_prepared(folder):
    folder.start(RECORD, STATISTICS, resume=False)
    folder.save_backbones({"teacher": TimmBackbone("vit_tiny_patch16_224", 2, model_args={"depth": 1})})
    said = timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{folder.path / 'teacher'}"))
    assert (said["mean"], said["std"], said["input_size"]) == (STATISTICS.mean, STATISTICS.std, (2, 32, 32))


def test_what_a_kill_left_half_exchanged_is_exchanged_by_the_next(folder):
    (folder.path / ".teacher.old").mkdir(parents=True)
    (folder.path / ".teacher.tmp").mkdir()
    folder.save_backbones({"teacher": Writing("a")})
    assert [path.name for path in folder.path.iterdir()] == ["teacher"]


def test_a_full_disk_is_the_systems_error_whoever_meets_it(folder):
    class Full(Writing):
        def save(self, folder, preprocessing=None):
            raise SafetensorError("No space left on device")

    folder.path.mkdir(parents=True)
    with pytest.raises(OSError, match="No space left"):
        folder.save_backbones({"teacher": Full("a")})
    assert not any(folder.path.iterdir())


def test_a_held_folder_is_made_and_checked_first(folder):
    with folder.held(RECORD, resume=False):
        folder.start(RECORD, STATISTICS, resume=False)
        with pytest.raises(SSLKitError, match="is in use by process"), folder.held(RECORD, resume=True):
            pass
    before = contents(folder.path)
    for record, resume, said in (
        (RECORD, False, "already holds a run"),
        (Record("some", "seed: 2", "xyz"), True, "another recipe"),
    ):
        with pytest.raises(SSLKitError, match=said), folder.held(record, resume):
            pass
    assert contents(folder.path) == before


def test_a_backbone_that_cannot_be_saved_costs_a_warning(folder, caplog):
    folder.path.mkdir(parents=True)
    folder.save_backbones({"teacher": Unsaved(""), "student": Writing("b")})
    assert [path.name for path in folder.path.iterdir()] == ["student"]
    assert [record.message for record in caplog.records] == [
        "teacher/ is not written: Unsaved cannot be saved by itself"
    ]


@pytest.mark.parametrize("text", ["[]", "{", '{"identity": 3}', "null"])
def test_an_environment_that_is_damaged_does_not_say_whose_the_folder_is(folder, text):
    folder.start(RECORD, STATISTICS, resume=False)
    (folder.path / "environment.json").write_text(text)
    folder.start(RECORD, STATISTICS, resume=True)
    assert json.loads((folder.path / "environment.json").read_text())["identity"] == RECORD.identity


@pytest.mark.parametrize(
    "name", [".lock", "metrics.jsonl", "checkpoints", "teacher", ".student.tmp", "checkpoints/step-00000001", "x"]
)
@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_with_links_is_refused_and_left_as_it_is(name, exists, folder, tmp_path):
    folder.checkpoints.mkdir(parents=True) if "/" in name else folder.path.mkdir(parents=True)
    target = tmp_path / "elsewhere"
    if exists:
        target.write_text("kept")
    (folder.path / name).symlink_to(target)
    refused = pytest.raises(SSLKitError, match=rf"{name} is a link to .*elsewhere, and a run writes inside its own")
    with refused, folder.held(RECORD, resume=True):
        pytest.fail("a foreign link is followed")
    assert exists == target.exists()
    assert not exists or target.read_text() == "kept"


def test_a_run_folder_may_be_a_link_itself(folder, tmp_path):
    (tmp_path / "disk").mkdir()
    folder.path.parent.mkdir()
    folder.path.symlink_to(tmp_path / "disk")
    folder.start(RECORD, STATISTICS, resume=False)
    assert (tmp_path / "disk/recipe.yaml").read_text() == "seed: 1\n"
