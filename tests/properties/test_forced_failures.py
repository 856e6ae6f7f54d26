"""The doctor on runs that were made to fail, and on runs that were not: shipped recipes on drawn textures."""

from io import StringIO

import pytest
from rich.console import Console

from sslkit.health.doctor import diagnose_run
from sslkit.launch import train
from sslkit.plugins import using
from sslkit.recipe import load

LAST = 400
"""Steps that a run is followed for; its schedules are those of the whole run."""

WITHIN = 300
"""Steps within which a failure has to be told."""

ON_TEXTURES = [
    "--data.train", "{Textures: {num_images: 4000, split: train}}", "--data.test", "null",
    "--data.mean", "[0.5, 0.5, 0.5]", "--data.std", "[0.25, 0.25, 0.25]", "--optimization.epochs", "25",
    "--evaluation.evaluators", "[]", "--evaluation.baselines", "[]", "--runtime.num_workers", "0",
]  # fmt: skip

FAILURES = {
    "no centering": ("dino", ["--method.collapse.momentum", "1.0"], {"one-dimension collapse"}),
    "a center with momentum 0.999": ("dino", ["--method.collapse.momentum", "0.999"], {"one-dimension collapse"}),
    "no sharpening": ("dino", ["--method.collapse.temperature", "0.1"], {"uniform collapse"}),
    "Copy and Centering": ("dino", ["--method.teacher", "Copy"], {"not learning", "dimensional collapse"}),
    "PreviousStep": ("dino", ["--method.teacher", "PreviousStep"], {"not learning", "dimensional collapse"}),
    "no predictor": ("byol", ["--method.predictor", "null"], {"constant embeddings"}),
    "no predictor, no batch norm in the head": (
        "byol",
        ["--method.predictor", "null", "--method.head.batch_norm", "false"],
        {"constant embeddings"},
    ),
    "a head one unit wide": (
        "moco-v2",
        ["--method.head.hidden_dim", "1", "--method.head.batch_norm", "true"],
        {"dimensional collapse", "constant embeddings"},
    ),
}


WATCHER = f"""
from sslkit.contracts import Callback

class StopEarly(Callback):
    def on_step_end(self, run, metrics): run.interrupted = metrics["step"] >= {LAST}
"""


def course(folder, method, overrides, seed):
    """Return the verdicts of a run, each with the step at which it came."""
    (folder / "watcher.py").write_text(WATCHER)
    with using([folder / "watcher.py"]):
        words = [*ON_TEXTURES, *overrides, "--seed", str(seed), "--runtime.callbacks", "[StopEarly]"]
        run = train(load(f"{method}-cifar10-tiny", words), folder / "run", console=Console(file=StringIO()))
        return [(verdict.name, verdict.step) for verdict in diagnose_run(run.folder.path).course]


@pytest.mark.long
@pytest.mark.parametrize("failure", FAILURES)
def test_a_forced_failure_gets_its_verdict(tmp_path, failure):
    method, overrides, right = FAILURES[failure]
    told = course(tmp_path, method, overrides, seed=31)
    print(f"{failure}: {told}")
    ailments = {name: step for name, step in told if name not in ("healthy", "too early to say")}
    assert ailments
    assert set(ailments) <= right
    assert min(ailments.values()) <= WITHIN


@pytest.mark.long
@pytest.mark.parametrize("method", ["dino", "byol", "moco-v2", "swav"])
def test_a_healthy_run_gets_none(tmp_path, method):
    told = course(tmp_path, method, [], seed=31)
    print(f"{method}: {told}")
    assert [name for name, _ in told] == ["too early to say", "healthy"]
