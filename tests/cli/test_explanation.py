"""What sslkit explain prints of a recipe."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

import sslkit
from sslkit.cli.main import main

TINY = str(Path(__file__).parents[1] / "tiny_parts.py")


def test_slots_sizes_and_the_course(recipe, explained):
    out = explained(recipe)
    for said in [
        "TinyOperator(temperature=Warmup(start=0.1, end=0.2, over=3 epochs))",
        "image 3 x 8 x 8 -> features 8 -> embedding 4 -> prototypes 16",
        "student 132 trainable (backbone 32), teacher 132",
        "2 global of 8 px + 2 local of 4 px; student sees 4, teacher 2: 6 pairs an image",
        "Batch 8 images a step",
        "16 steps = 2 epochs of 8 steps; 64 images (data.train)",
        "learning_rate 0.002 0.002 0.002",
        "teacher_momentum 0.99 0.99 0.99",
        "method.collapse.temperature.over 24 3 longer than the run",
    ]:
        assert said in out, said


def test_every_slot_names_where_its_part_comes_from(recipe, tmp_path, capsys):
    (tmp_path / "over.yaml").write_text("base: tiny.yaml\nmethod: {head: {embed_dim: 3}, collapse: Centering}\n")
    words = ["explain", str(tmp_path / "over.yaml"), "--plugin", TINY, "--method.teacher.momentum", "0.5"]
    assert main([*words, "--data.train", "sslkit.data.textures.Textures"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    first = {line.split()[0]: i for i, line in enumerate(lines) if line.startswith("  ") and line.strip()}

    def below(key):
        return lines[first[key] + 1].strip()

    assert below("method.backbone") == "tiny_parts.py"
    assert below("method.head") == "tiny_parts.py + over"
    assert below("method.teacher") == "tiny_parts.py + command line"
    assert below("method.collapse") == f"sslkit {sslkit.__version__} + over"
    assert below("data.train") == f"sslkit {sslkit.__version__} + command line"


def test_a_path_is_not_cut_in_a_terminal_of_80_columns(dino, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    place = "/data/pictures/of/many/birds"
    words = ["explain", dino, "--plugin", TINY, "--num-images", "100", "--evaluation.evaluators", "[]"]
    assert main([*words, "--data.test", f"{{HuggingFaceImages: {{path: {place}, split: test}}}}"]) == 0
    shown = capsys.readouterr().out
    assert f"HuggingFaceImages(path={place}," in shown
    # What is sslkit's own needs no line for that.
    assert f"sslkit {sslkit.__version__}\n" not in shown


def test_what_a_method_says_besides_its_slots_is_one_line(recipe, explained, tmp_path):
    assert " method " not in explained(recipe, "--method.batch_norm", "synchronized", "--method.student_views", "all")
    (tmp_path / "over.yaml").write_text("base: tiny.yaml\nmethod: {init: independent, separate_views: true}\n")
    choices = ["--method.student_views", "[0, 2]", "--method.teacher_views", "[1]", "--method.batch_norm", "2"]
    start = ["--method.init_from", "timm:test_vit", "--method.init_from.partial", "[blocks.1]"]
    out = explained(str(tmp_path / "over.yaml"), *choices, *start)
    assert out.count(" method ") == 1
    line = out[out.index(" method ") : out.index(" views ")]
    for said in [
        "init=independent",
        "separate_views=true",
        "student_views=[0, 2]",
        "teacher_views=[1]",
        "batch_norm=2",
        "init_from={weights: timm:test_vit, ",
        "partial: [blocks.1]}",
        "over",
        "command line",
    ]:
        assert said in line, said


def test_durations_are_those_that_are_in_effect(dino, explained):
    sinkhorn = ["--method.collapse", "{SinkhornKnopp: {queue_size: 0}}"]
    out = explained(dino, *sinkhorn)
    assert "runtime.checkpoint_every 100 1" in out
    assert "queue_start" not in out
    written = explained(
        dino, *sinkhorn, "--method.collapse.queue_start", "3 epochs", "--optimization.freeze.backbone", "7 steps"
    )
    assert "method.collapse.queue_start 300 3" in written
    assert "optimization.freeze.backbone 7 0.07" in written


def test_groups_of_batch_norm_are_those_of_a_process_and_its_micro_batches(dino, explained):
    for words, images, code in [
        (["--method.batch_norm", "7"], "40 images of a process", 2),
        (["--method.batch_norm", "20", "--processes", "2"], "20 images of a process", 2),
        (["--method.batch_norm", "8", "--runtime.accumulation", "2"], "40 images of a process in 2 micro-batches", 2),
        (["--method.batch_norm", "10", "--processes", "2"], "batch_norm=10", 0),
        (["--runtime.accumulation", "21", "--processes", "2"], "the 20 images of a process cannot be cut into 21", 2),
    ]:
        assert images in explained(dino, *words, code=code)


def test_arguments_are_written_as_yaml_does(recipe, explained):
    words = ["--method.backbone.patch_size", "null", "--evaluation.networks", "[teacher]"]
    head = ["--method.head", "{DINOHead: {num_prototypes: 8, hidden_dim: 4, batch_norm: true}}"]
    out = explained(recipe, *words, *head)
    assert "TinyBackbone(patch_size=null)" in out
    assert "DINOHead(num_prototypes=8, hidden_dim=4, batch_norm=true)" in out


def test_it_counts_with_a_number_or_says_what_it_does_not_know(recipe, explained):
    nowhere = [recipe, "--data", "nowhere"]
    out = explained(*nowhere)
    assert "the number of images is unknown; add --num-images N" in out
    assert "there are no images in nowhere" in out
    assert "Memory" in out
    assert "learning_rate" not in out
    assert "200 steps = 2 epochs of 100 steps; 800 images (--num-images)" in explained(*nowhere, "--num-images", "800")
    assert "80 images (data.num_images)" in explained(*nowhere, "--data.num_images", "80")


def test_components_tell_their_own_numbers(dino, explained):
    out = explained(dino)
    assert "Images a prototype 62.5 in the data, 0.625 in a step" in out
    assert "teacher half-life 69 steps, 0.69 epochs 138 steps, 1.4 epochs longer than the run" in out
    constant = explained(dino, "--method.teacher.momentum", "0.99")
    assert "Teacher half-life 69 steps, 0.69 epochs" in constant
    assert "teacher half-life" not in constant
    queue = [
        "--method.head",
        "{SwAVHead: {num_prototypes: 16}}",
        "--method.collapse",
        "{SinkhornKnopp: {queue_size: 80}}",
    ]
    assert "Queue 80 images a view; each stays 2 steps, 0.02 epochs" in explained(dino, *queue)


def test_processes_and_micro_batches_share_a_batch(dino, explained):
    out = explained(dino, "--processes", "4", "--runtime.accumulation", "2")
    assert "Batch 40 images a step, 4 processes of 10, each in 2 micro-batches" in out
    assert "at the peak of a step of 10 images in fp32" in out
    local = ["--processes", "4", "--runtime.accumulation", "2", "--method.batch_norm", "local"]
    assert "method.batch_norm: statistics of 5 images" in explained(dino, *local)
    assert "optimization.batch_size: 40 cannot be shared by 3 processes" in explained(dino, "--processes", "3", code=2)


def test_what_a_step_costs(dino, explained):
    out = explained(dino)
    [peak, networks] = re.search(r"Memory (\S+ \wB) of tensors at the peak .* \(networks (\S+ \wB),", out).groups()
    assert peak.endswith("MB")
    assert networks.endswith("kB")
    # A canvas of 3 x 40 x 40 bytes.
    assert (
        "40 images decoded a step, 4.8 kB each from the loader if they have 8 bits: 192 kB a step, 4.8 MB a second"
        in out
    )


def test_a_sound_recipe_has_neither(dino, explained):
    out = explained(dino)
    assert "Warnings" not in out
    assert "Proposals" not in out


def test_warnings_name_their_source_and_proposals_the_command(dino, explained):
    out = explained(dino, "--method.collapse.temperature", "0.08", "--num-images", "1000")
    assert "Warnings - method.collapse: the teacher's temperature starts at 0.08" in out
    assert "(DINO appendix D)" in out
    assert "Proposals --apply FILE.yaml writes them as a recipe" in out
    assert "- method.teacher: momentum 0.99 was chosen for 100 steps an epoch, a half-life of 0.69 epochs;" in out
    words = shlex.split(out[out.index("sslkit train") :].replace("\\", ""))
    assert words[:5] == ["sslkit", "train", dino, "--method.collapse.temperature", "0.08"]
    momentum = words[words.index("--method.teacher.momentum") + 1]
    assert yaml.safe_load(momentum) == {"Cosine": {"start": 0.97, "end": 1}}
    assert out.count("the teacher's temperature starts at 0.08") == 1


def test_the_printed_command_leaves_no_proposal(dino, explained):
    words = [dino, "--num-images", "1000", "--method.collapse.temperature", "0.08"]
    out = explained(*words)
    command = shlex.split(out[out.index("sslkit train") :].replace("\\", ""))
    again = explained(*command[2:], "--num-images", "1000")
    assert "Warnings" not in again
    assert "Proposals" not in again


def test_what_a_proposal_replaces_is_not_in_the_command_twice(dino, explained):
    given = ["--optimization.batch_size=8000", "--method.collapse.temperature", "0.08"]
    out = explained(dino, "--optimization.batch_size", "7000", *given, "--seed", "7000")
    command = out[out.index("sslkit train") :]
    assert re.findall(r"--optimization\.batch_size\S*", command) == ["--optimization.batch_size"]
    assert "--optimization.batch_size 256" in command
    assert "--seed 7000" in command
    assert command.count("--method.collapse.temperature ") == 2  # a class may keep what a lower one says of it


@pytest.mark.parametrize("columns", [80, 120])
def test_the_screen_is_no_wider_than_the_terminal(columns, dino, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["explain", "--plugin", TINY, dino, "--num-images", "60", "--method.collapse.temperature", "0.08"]) == 0
    lines = capsys.readouterr().out.splitlines()
    command = next(i for i, line in enumerate(lines) if "sslkit train" in line)
    assert max(map(len, lines[:command])) <= columns
    assert all(line.endswith(" \\") for line in lines[command:-1])
