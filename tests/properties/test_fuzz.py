"""A thousand damaged recipes and command lines: each runs, or is refused with one message, soon and without a trace."""

import copy
import json
import random
import re
import time
from pathlib import Path

import pytest
import yaml

from sslkit.cli.main import main
from sslkit.recipe import load
from sslkit.recipe.yaml_subset import parse_yaml

pytestmark = pytest.mark.long

CASES = 1200
SECONDS = 10
"""Of this process; the slowest allowed case trains for a step."""

BASE = {
    "method": {
        "backbone": {"TimmBackbone": {"name": "test_vit", "drop_path_rate": 0.1}},
        "head": {"DINOHead": {"num_prototypes": 16, "hidden_dim": 8, "embed_dim": 4}},
        "teacher": {"EMA": {"momentum": {"Cosine": {"start": 0.9, "end": 1.0}}}},
        "collapse": {"Centering": {"temperature": 0.07}},
        "loss": {"CrossEntropy": {"temperature": 0.1}},
        "predictor": None,
    },
    "views": {"MultiCrop": {"global_size": 32, "local_size": 16, "num_local_views": 1}},
    "data": {
        "train": {"Textures": {"num_images": 8, "size": 32}},
        "test": {"Textures": {"num_images": 8, "size": 32, "split": "test"}},
        "mean": [0.5, 0.5, 0.5],
    },
    "optimization": {
        "optimizer": {"AdamW": {"betas": [0.9, 0.99]}},
        "batch_size": 4,
        "steps": 1,
        "epochs": 1,
        "lr": {"Cosine": {"start": 1e-3, "end": 1e-5, "warmup": "1 steps"}},
        "freeze": {"prototypes": "1 epochs"},
        "lr_scale": {"backbone": 0.5},
    },
    "precision": "fp32",
    "seed": 3,
    "runtime": {"device": "cpu", "num_workers": 0, "threads": 1, "checkpoint_every": "1 epochs", "callbacks": []},
    "evaluation": {"evaluators": [{"KNN": {"k": [2]}}], "baselines": []},
}

VALUES = [
    None, True, 0, 1, -1, 3, 10**4, 10**9, 10**18, 2**63, 10**25, 0.5, -0.5, 1e-300, 1e300, float("inf"), float("-inf"),
    float("nan"), "", " ", "x", "1", "0.1", "1 epochs", "-1 epochs", "1e400 steps", "null", "../../x", "/dev/zero",
    "~nobody-here/x", "x" * 5000, "é\n\t", "a.b.C", "os.system", "KNN", "EMA", "Cosine", [], [1], [[]], [None],
    ["x", 1], [1e9] * 50, {}, {"x": 1}, {"class_path": "EMA"}, {"class_path": "a.B", "init_args": []},
    {"Cosine": {"start": 1}},
    {"EMA": None}, {"EMA": 3}, {"TimmBackbone": {"name": "no_such_net"}}, {"MultiCrop": []}, {"x": {"y": {"z": {}}}},
]  # fmt: skip

WORDS = [
    "--", "-", "---", "=", "--=", "--seed", "--seed=", "--seed=1", "--.", "--a.b.c", "--method.", "--method.help",
    "--resume", "--print-config", "--run-dir", "--plugin", "--allow", "x", "--data", "--data=''", "--help=1", "-h1",
    "--optimization.lr", "--optimization.lr=[", "--optimization.lr={", "--name=../x", "--config", "quickstart",
    "\udcff", "--runtime.trackers=[x]", "--runtime.trackers=[{a: b}]", "--base=quickstart", "é", "",
    "--method.backbone=resnet18",
]  # fmt: skip

TEXT = list("{}[]:,-&*!|>'\"%@`#?~\n\t 0aZ.é\u2028\x07")


def places(value, path=()):
    """Yield the path of every value in nested plain data."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(drawn):
    """Return the recipe with one to three values replaced, removed, renamed, or given a stranger's neighbour."""
    recipe = copy.deepcopy(BASE)
    for _ in range(drawn.choice([1, 1, 2, 3])):
        *path, last = drawn.choice([*places(recipe)])
        owner = recipe
        for key in path:
            owner = owner[key]
        kind = drawn.randrange(6)
        if kind == 0:
            del owner[last]
        elif kind == 1 and isinstance(owner, dict):
            text = str(last)
            cut = drawn.randrange(len(text) + 1)
            owner[text[:cut] + drawn.choice(["", "x", "_", "."]) + text[cut + 1 :]] = owner.pop(last)
        elif kind == 2 and isinstance(owner, dict):
            word = drawn.choice(["x", "epochs", "name", "base", "$schema", "class_path", "KNN"])
            owner[word] = copy.deepcopy(drawn.choice(VALUES))
        else:
            owner[last] = copy.deepcopy(drawn.choice(VALUES))
    return recipe


def garbled(drawn):
    """Return the text of the recipe with characters inserted, removed, or lines repeated."""
    text = yaml.safe_dump(BASE, default_flow_style=drawn.choice([None, True, False]))
    for _ in range(drawn.choice([1, 2, 5])):
        place = drawn.randrange(len(text))
        length = drawn.choice([0, 0, 1, 5])
        extra = "".join(drawn.choices(TEXT, k=drawn.choice([0, 1, 1, 3])))
        text = text[:place] + extra + text[place + length :]
    return text


def draw(number, place):
    """Write the recipe of a case into a folder and return the words of its command line."""
    drawn = random.Random(number)
    file = place / "fuzz.yaml"
    is_text = drawn.random() < 0.3
    content = garbled(drawn) if is_text else yaml.safe_dump(changed(drawn) if drawn.random() < 0.8 else BASE)
    file.write_text(content, encoding="utf-8")
    words = ["train", str(file)]
    if drawn.random() < 0.3:
        for _ in range(drawn.choice([1, 1, 2])):
            words.insert(drawn.randrange(len(words) + 1), drawn.choice(WORDS))
    if drawn.random() < 0.3:
        path = drawn.choice([path for path in places(BASE) if all(isinstance(key, str) for key in path)])
        keys = [key for key in path if not key[0].isupper()]
        words += [f"--{'.'.join(keys)}", json.dumps(drawn.choice(VALUES))]
    return words


def test_the_recipe_trains_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fuzz.yaml").write_text(yaml.safe_dump(BASE))
    assert main(["train", "fuzz.yaml"]) == 0
    assert "Run folder" in capsys.readouterr().out


@pytest.mark.parametrize("chunk", range(12))
def test_what_is_damaged_runs_or_is_refused(chunk, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("SSLKIT_DEBUG", raising=False)
    outcomes, wrong = {0: 0, 1: 0, 2: 0}, []
    for number in range(chunk * CASES // 12, (chunk + 1) * CASES // 12):
        place = tmp_path / str(number)
        (place / "here").mkdir(parents=True)
        monkeypatch.chdir(place / "here")
        words = draw(number, place)
        begun = time.process_time()
        try:
            code = main(words)
        except BaseException as error:
            wrong.append((number, f"{type(error).__name__}: {error}"[:200]))
            continue
        seconds, said = time.process_time() - begun, capsys.readouterr()
        outcomes[code] += 1
        left = [path.name for path in place.rglob("*") if path != place / "here" and path.name != "fuzz.yaml"]
        lines = [line for line in said.err.splitlines() if line.startswith("sslkit: ")]
        if seconds > SECONDS:
            wrong.append((number, f"{seconds:.1f} s"))
        # Words without a command, or a command without what it needs, show the help.
        is_help = said.out.startswith("sslkit")
        if code == 2 and (left or len(lines) != (not is_help) or len(said.err) > 4000):
            wrong.append((number, left, said.err[-300:]))
        if code == 1:
            wrong.append((number, said.err[-300:]))
        if "Traceback" in said.err:
            wrong.append((number, "traceback"))
    assert wrong == []
    # Neither does all run, nor is all refused for one reason.
    assert outcomes[0] > 2
    assert outcomes[2] > 50


def test_every_builtin_recipe_is_in_the_subset():
    for file in (Path(__file__).parents[2] / "recipes").glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        # YAML 1.1 takes 1e-3 for text.
        assert parse_yaml(text, str(file)) == yaml.safe_load(re.sub(r"(?<![\d.])(\d+)e-", r"\1.0e-", text))
        assert load(file).name == file.stem
