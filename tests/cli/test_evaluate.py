import json
import shutil
import subprocess
import sys

import pytest
import timm
import torch
import torchvision
from bad_weights import KINDS, SPRUNG, make
from PIL import Image

from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.cli.main import main


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two classes: dark and bright."""
    folder = tmp_path_factory.mktemp("images")
    for split, count in (("train", 6), ("test", 3)):
        for name, level in (("dark", 20), ("bright", 200)):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (32, 32), (level + 3 * i, level, level)).save(folder / split / name / f"{i}.png")
    return folder


def evaluate(*words):
    return main(["evaluate", *map(str, words)])


def test_numbers_and_protocol_are_printed_and_stored(images, tmp_path, capsys):
    output = tmp_path / "results.json"
    small = ("--size", 32, "--resize", 32)
    for _ in range(2):
        assert evaluate("knn", "raw-pixels:plain", "--data", images, *small, "--k", "1,3", "--output", output) == 0
    shown = capsys.readouterr().out
    assert "knn-v1: cosine, exp(sim/0.07)" in shown
    assert [line.split() for line in shown.splitlines() if "top1" in line] == [
        ["knn/top1@1", "50.0", "100.0"],
        ["knn/top1@3", "50.0", "100.0"],
    ] * 2
    first, second = json.loads(output.read_text())
    assert first == second
    assert first["metrics"] == {"knn/top1@1": 100, "knn/top1@3": 100}
    assert (first["network"], first["step"]) == ("raw-pixels (plain)", None)


def test_raw_pixels_alone_means_every_variant(images, capsys):
    assert evaluate("KNN", "raw-pixels", f"--data={images}", "--size=32", "--k=2", "--temperature", "0.5") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "exp(sim/0.5)" in shown
    for variant in ("plain", "centered", "gray-centered"):
        assert f"({variant})" in shown


def test_a_saved_backbone(images, tmp_path, capsys):
    torch.manual_seed(0)
    TimmBackbone("test_vit").save(tmp_path / "mine")
    assert evaluate("knn", tmp_path / "mine", "--data", images, "--size", 32, "--limit", 4, "--k", "[1]") == 0
    assert "knn/top1@1" in capsys.readouterr().out


def test_a_network_stands_beside_chance_pixels_and_itself_untrained(images, tmp_path, capsys):
    TimmBackbone("test_vit").save(tmp_path / "mine")
    words = ("knn", tmp_path / "mine", "--data", images, "--size", 32, "--limit", 4, "--k", "1")
    assert evaluate(*words, "--output", tmp_path / "results.json") == 0
    header, row = (line.split() for line in capsys.readouterr().out.splitlines() if "chance" in line or "top1" in line)
    assert header == ["chance", "raw", "pixels*", "untrained", "mine"]
    assert row[:2] == ["knn/top1@1", "50.0"]
    assert len(row) == 5
    assert [row["network"] for row in json.loads((tmp_path / "results.json").read_text())] == [
        *(f"raw-pixels ({variant})" for variant in ("plain", "centered", "gray-centered")), "untrained", "mine",
    ]  # fmt: skip
    for baselines, names in (("none", ["mine"]), ("[untrained]", ["untrained", "mine"])):
        assert evaluate(*words, "--baselines", baselines) == 0
        assert ["chance", *names] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_dear_baselines_are_left_out_in_a_line(images, monkeypatch, capsys):
    monkeypatch.setattr("sslkit.evaluation.baselines.CHEAP_SECONDS", 0)
    assert evaluate("knn", "untrained:test_vit", "--data", images, "--size", 32, "--k", 1) == 0
    shown = capsys.readouterr()
    assert shown.err.endswith(
        "note: not measured: raw-pixels (about 1 s). To compare with them: --baselines raw-pixels\n"
    )
    assert "raw pixels" not in shown.out


def test_the_baselines_of_a_run_are_not_measured_again(images, tmp_path, capsys):
    TimmBackbone("test_vit").save(tmp_path / "run" / "teacher")
    (tmp_path / "run" / "recipe.yaml").write_text(
        f"data: {{train: {{HuggingFaceImages: {{path: {images}}}}}, test: {{HuggingFaceImages: {{split: test}}}}}}\n"
    )
    row = {"step": 0, "network": "untrained", "evaluator": "knn", "dataset": f"{images.name} test"}
    row |= {"protocol": "knn-v1: cosine, exp(sim/0.07), eval-mode features without augmentation"}
    rows = [row | {"metrics": {"knn/top1@1": 12.3}}, row | {"step": None, "metrics": {"knn/top1@1": 77.7}}]
    rows += [row | {"network": "teacher", "metrics": {"knn/top1@1": 45.6}}]
    (tmp_path / "run" / "results.json").write_text(json.dumps(rows))
    for place in (tmp_path / "run", tmp_path / "run" / "teacher"):
        assert evaluate("knn", place, "--k", "1", "--batch-size", 4) == 0
        header, numbers = [
            line.split() for line in capsys.readouterr().out.splitlines() if "chance" in line or "top1" in line
        ]
        assert header == ["chance", "untrained", "teacher"]
        assert numbers[2] == "12.3"
        assert numbers[3] != "45.6"
    assert evaluate("knn", tmp_path / "run", "--k", "2") == 0
    assert "12.3" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["kn", "raw-pixels", "--data", "{images}"], "unknown evaluator 'kn'. Did you mean 'knn'"),
        (["knn"], "takes an EVALUATOR and a MODEL, not 'knn'"),
        (["knn", "raw-pixels"], "--data is missing"),
        (["knn", "raw-pixels", "--data", "{images}", "--temprature", "1"], "Did you mean '--temperature'"),
        (["knn", "raw-pixels", "--data", "{images}", "--sise", "1"], "Did you mean '--size'"),
        (["knn", "raw-pixels", "--data", "{images}", "--k", "a,b"], "k must be a list, each a whole number"),
        (["knn", "raw-pixels", "--data", "{images}", "--k", "0"], "k of KNN lies in [1, inf), not 0"),
        (["knn", "raw-pixels", "--data", "{images}", "--size", "big"], "--size must be a whole number"),
        (["knn", "raw-pixels", "--data", "{images}", "--test-split", "tst"], "Did you mean 'test'"),
        (
            ["knn", "raw-pixels", "--data", "{images}", "--device", "tpu"],
            "sslkit: --device: 'tpu' is not available here",
        ),
        (
            ["knn", "untrained:test_vit", "--data", "{images}", "--baselines", "raw-pixel"],
            "--baselines, of untrained:test_vit: unknown baseline 'raw-pixel'. Did you mean 'raw-pixels'?",
        ),
        (["knn", "raw-pixel", "--data", "{images}"], "raw-pixel does not exist"),
        (["knn", "raw-pixels", "--data", "{images}/test/dark"], "no split 'test'"),
    ],
)
def test_mistakes_are_named(words, message, images, capsys):
    assert evaluate(*(word.format(images=images) for word in words)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_size_that_the_model_cannot_take_is_refused_before_the_images_are_read(capsys):
    assert evaluate("knn", "untrained:mixer_s32_224", "--data", "nowhere", "--size", 96) == 2
    said = capsys.readouterr().err
    assert said.startswith("sslkit: --size: mixer_s32_224 cannot take images of 96 px: Input height (96)")
    assert said.endswith(" Add\n  --size 224\n")


@pytest.mark.parametrize("content", [None, "folder", "{}", "not JSON"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(content, images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sslkit.cli.evaluate._measure", lambda *_: pytest.fail("it worked first"))
    output = tmp_path / ("nowhere/x.json" if content is None else "x.json")
    if content == "folder":
        output.mkdir()
    elif content is not None:
        output.write_text(content)
    assert evaluate("knn", "raw-pixels", "--data", images, "--output", output) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"sslkit: --output {output}")
    assert error.count("\n") == 1
    assert content in (None, "folder") or output.read_text() == content


def test_a_runs_own_images_need_no_other_component_of_its_recipe(images, tmp_path, capsys):
    torch.manual_seed(0)
    TimmBackbone("test_vit").save(tmp_path / "run" / "teacher")
    (tmp_path / "run" / "recipe.yaml").write_text(
        f"method: {{collapse: nobody.knows.Operator}}\ndata: {{train: {{HuggingFaceImages: {{path: {images}}}}}, "
        "test: {HuggingFaceImages: {split: test}}}\n"
    )
    assert evaluate("knn", tmp_path / "run" / "teacher", "--size", 32, "--k", "1") == 0
    assert "knn/top1@1" in capsys.readouterr().out


def resnet18():
    return {name: tensor for name, tensor in torchvision.models.resnet18().state_dict().items() if "fc" not in name}


def under(prefix, tensors):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


FILES = {
    "torchvision": lambda: torchvision.models.resnet18().state_dict(),
    "MoCo": lambda: {"state_dict": under("module.encoder_q.", resnet18()), "arch": "resnet18"},
    "SwAV": lambda: {**under("module.", resnet18()), "module.prototypes.weight": torch.ones(2, 2)},
    "VICReg": lambda: {"model": {**under("module.backbone.", resnet18()), "module.projector.0.weight": torch.ones(2)}},
    "DINO": lambda: {"teacher": under("backbone.", timm.create_model("vit_tiny_patch16_224").state_dict())},
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_weights(kind, images, tmp_path, capsys):
    torch.save(FILES[kind](), tmp_path / "weights.pth")
    assert evaluate("knn", tmp_path / "weights.pth", "--data", images, "--size", 32, "--limit", 4, "--k", "1") == 0
    network = {"torchvision": "backbone", "DINO": "teacher"}.get(kind, "student")
    assert network in capsys.readouterr().out


def test_a_file_whose_network_is_named(images, tmp_path, capsys):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "weights.pth")
    words = ["knn", tmp_path / "weights.pth", "--data", images, "--size", 32, "--limit", 4, "--k", "1"]
    assert evaluate(*words) == 2
    assert "--backbone NAME" in capsys.readouterr().err
    assert evaluate(*words, "--backbone", "test_vit") == 0
    assert evaluate(*words, "--network", "student") == 2
    assert "unknown network 'student'. Choices: backbone" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_file_is_one_message(kind, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file, said = make(kind, tmp_path)
    assert evaluate("knn", file, "--data", images) == 2
    error = capsys.readouterr().err
    assert str(file) in error
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / SPRUNG).exists()


def test_unlabelled_images_are_an_error_here(tmp_path, capsys):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / split / "a.png")
    assert evaluate("knn", "raw-pixels", "--data", tmp_path, "--size", 8) == 2
    assert "knn needs labels" in capsys.readouterr().err


def test_labels_in_another_column_are_found_by_name(tmp_path, capsys):
    for split in ("train", "test"):
        folder = tmp_path / split
        folder.mkdir()
        rows = []
        for i, kind in enumerate(("dark", "bright") * 2):
            Image.new("RGB", (8, 8), (200 * (i % 2),) * 3).save(folder / f"{i}.png")
            rows.append(f"{i}.png,picture {i},{kind}")
        (folder / "metadata.csv").write_text("\n".join(["file_name,caption,kind", *rows]))
    words = ("knn", "raw-pixels", "--data", tmp_path, "--size", 8, "--k", "1")
    assert evaluate(*words) == 2
    said = capsys.readouterr().err
    assert "knn needs labels; without them: " in said
    assert "no column 'label'; label_column may be 'kind'" in said
    assert evaluate(*words, "--label-column", "kind") == 0
    said = capsys.readouterr().err
    assert [line.partition(": ")[2] for line in said.splitlines()] == [
        "4 images of split 'train', other splits: test 4; 2 classes",
        "4 images of split 'test', other splits: train 4; 2 classes",
    ]


def test_images_that_are_no_part_of_the_splits_are_left_out_by_name(images, tmp_path, capsys):
    shutil.copytree(images, tmp_path / "images")
    Image.new("RGB", (8, 8)).save(tmp_path / "images/logo.png")
    words = ("knn", "raw-pixels:plain", "--data", tmp_path / "images", "--size", 8, "--k", "1")
    assert evaluate(*words) == 2
    assert "1 of 19 images lie outside of the split folders (logo.png)" in capsys.readouterr().err
    assert evaluate(*words, "--exclude", "logo.png") == 0


def test_help_names_evaluators_and_needs_no_torch():
    code = (
        "import sys; from sslkit.cli.main import main; main(['evaluate', '--help']); assert 'torch' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "knn" in shown
    assert "Weighted k-nearest-neighbour" in shown


def test_help_of_one_evaluator_says_what_it_takes(capsys):
    assert evaluate("knn", "--help") == 0
    shown = capsys.readouterr().out
    assert "temperature" in shown
    assert "0.07" in shown
