import json
import math
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import sslkit_distribution_alignment
import torch
from sslkit_distribution_alignment.alignment import DistributionAlignment
from torch import nn

from sslkit.cli.main import main
from sslkit.clock import Clock
from sslkit.contracts import Backbone, Head
from sslkit.losses import CrossEntropy
from sslkit.method.branch import Branch
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.schedules import Warmup
from sslkit.teachers import EMA
from sslkit.types import Features, Projection, ViewGroup, Views


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def teacher(logits, ids=(0, 1)):
    return Projection(logits, logits, logits, logits, tuple(ids))


def slow_softmax(scores):
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]


def slow_step(logits, mean, temperature, momentum, floor):
    """Targets and the next mean, image by image and prototype by prototype."""
    rows = [slow_softmax([x / temperature for x in image]) for view in logits.tolist() for image in view]
    raised = [[p * (1 / len(mean) + floor) / (m + floor) for p, m in zip(row, mean, strict=True)] for row in rows]
    targets = [[value / sum(row) for value in row] for row in raised]
    used = [sum(row[k] for row in rows) / len(rows) for k in range(len(mean))]
    mean = [momentum * m + (1 - momentum) * u for m, u in zip(mean, used, strict=True)]
    return torch.tensor(targets, dtype=torch.float64).view(logits.shape), mean


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 3, 2), (2, 1, 13), (3, 4, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_targets_and_use_over_several_steps(shape, dtype, tolerance):
    operator = DistributionAlignment(shape[2], temperature=0.2, momentum=0.7, floor=1e-3)
    mean = [1 / shape[2]] * shape[2]
    for _ in range(4):
        logits = torch.rand(shape, dtype=dtype)
        answers = teacher(logits, range(shape[0]))
        targets = operator(answers)
        expected, mean = slow_step(logits.double(), mean, 0.2, 0.7, 1e-3)
        assert (targets.kind, targets.view_ids) == ("probabilities", answers.view_ids)
        assert targets.values.dtype == dtype
        assert (targets.values.double() - expected).norm() <= tolerance * expected.norm()
        operator.update(answers)
    exact = torch.tensor(mean, dtype=torch.float64) * shape[2]
    assert (operator.use.double() - exact).norm() <= tolerance * exact.norm()


def test_by_hand():
    operator = DistributionAlignment(2, temperature=1.0, momentum=0.5, floor=1e-12)
    answers = teacher(torch.tensor([[[math.log(3), 0.0]]], dtype=torch.float64), (0,))
    # An even mean changes nothing: (3/4, 1/4).
    torch.testing.assert_close(operator(answers).values, torch.tensor([[[0.75, 0.25]]], dtype=torch.float64))
    operator.update(answers)
    torch.testing.assert_close(operator.use, torch.tensor([1.25, 0.75], dtype=torch.float64))
    # 0.75 / 0.625 = 1.2 and 0.25 / 0.375 = 2/3, over their sum.
    expected = torch.tensor([[[9 / 14, 5 / 14]]], dtype=torch.float64)
    torch.testing.assert_close(operator(answers).values, expected)


def test_a_constant_answer_becomes_a_uniform_target():
    operator = DistributionAlignment(5, momentum=0.0, floor=1e-12)
    constant = teacher(torch.rand(1, 1, 5, dtype=torch.float64).expand(2, 6, 5) / 10)
    operator.update(constant)
    torch.testing.assert_close(
        operator(constant).values, torch.full((2, 6, 5), 0.2, dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_forward_is_pure_and_reads_the_use_of_the_steps_before():
    operator, answers = DistributionAlignment(3), teacher(torch.randn(2, 4, 3))
    first, again = operator(answers).values, operator(answers).values
    assert torch.equal(first, again)
    assert torch.equal(operator.use, torch.ones(3))
    operator.update(answers)
    assert not torch.equal(operator(answers).values, first)


def test_the_state_is_saved_and_loaded():
    operator, answers = DistributionAlignment(4), teacher(torch.randn(2, 3, 4))
    operator.update(answers)
    assert set(operator.state_dict()) == {"use"}
    other = DistributionAlignment(4)
    other.load_state_dict(operator.state_dict())
    assert torch.equal(other(answers).values, operator(answers).values)


def test_an_unused_prototype_stays_finite():
    operator = DistributionAlignment(3, momentum=0.0)
    answers = teacher(torch.tensor([[[0.0, 0.0, -1000.0]]]), (0,))
    for _ in range(3):
        operator.update(answers)
        assert operator(answers).values.isfinite().all()
    assert operator(teacher(torch.zeros(1, 1, 3), (0,))).values[0, 0].argmax() == 2


def test_temperature_follows_a_schedule_and_half_precision_is_raised():
    operator = DistributionAlignment(4, temperature=Warmup(0.1, 0.3, "3 steps", every="step"))
    logits = torch.rand(2, 3, 4).bfloat16()
    for step, temperature in enumerate((0.1, 0.2, 0.3, 0.3)):
        values = operator(teacher(logits), Clock(step, 4, 4)).values
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, (logits.float() / temperature).softmax(-1))


def test_metrics():
    metrics = DistributionAlignment(8, temperature=0.05).metrics(Clock())
    assert metrics["teacher_temperature"] == 0.05
    assert float(metrics["use_entropy"]) == pytest.approx(math.log(8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0}, "temperature of DistributionAlignment is above 0, not 0"),
        ({"momentum": 1.0}, r"momentum of DistributionAlignment lies in \[0, 1\), not 1.0"),
        ({"floor": 0.0}, "floor of DistributionAlignment is above 0, not 0.0"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DistributionAlignment(3, **arguments)


class Pixels(Backbone):
    embed_dim = 12

    def forward(self, images, mask=None):
        return Features(images.flatten(1))


class LinearHead(Head):
    embed_dim, num_prototypes = 6, 9

    def __init__(self):
        super().__init__()
        self.projector = nn.Linear(12, 6)
        self.prototypes = nn.Linear(6, 9, bias=False)


def test_the_training_step_takes_it():
    operator = DistributionAlignment(9, momentum=0.9)
    model = StudentTeacher(Branch(Pixels(), LinearHead()), teacher_update=EMA(), collapse=operator, loss=CrossEntropy())
    optimizer = torch.optim.SGD(model.student.parameters(), lr=0.1)
    views = Views((ViewGroup(torch.randn(2, 8, 3, 2, 2), (0, 1)),))
    before = model.student.head.projector.weight.detach().clone()
    output = train_step(model, views, optimizer, accumulation=3)
    expected, mean = slow_step(output.teacher.logits.double(), [1 / 9] * 9, 0.04, 0.9, 1e-6)
    torch.testing.assert_close(output.targets.values.double(), expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(operator.use.double(), 9 * torch.tensor(mean, dtype=torch.float64), rtol=1e-5, atol=0)
    assert not torch.equal(model.student.head.projector.weight, before)


def test_the_hook_names_the_class():
    (target,) = sslkit_distribution_alignment.collapse_operators()
    module, _, name = target.partition(":")
    assert getattr(sys.modules[module], name) is DistributionAlignment


def test_listing_imports_no_torch():
    code = "import sys, sslkit_distribution_alignment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_recipe_trains_from_the_command_line(tmp_path, capsys):
    installed = [point.value for point in entry_points(group="sslkit", name="distribution-alignment")]
    if installed != ["sslkit_distribution_alignment"]:
        pytest.skip("the package is not installed: its entry point is what this test is about")
    recipe = Path(__file__).parents[1] / "recipes/dino-textures-alignment.yaml"
    small = "--data.train.num_images 32 --data.test.num_images 16 --optimization.batch_size 8 --optimization.steps 3"
    words = ["train", str(recipe), "--run-dir", str(tmp_path / "run"), *small.split(), "--runtime.callbacks", "[]"]
    assert main([*words, "--evaluation.baselines", "[]"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 3]
    assert 0 < rows[-1]["use_entropy"] <= math.log(256)
    assert "distribution-alignment" in (tmp_path / "run/environment.json").read_text()
    assert "teacher" in capsys.readouterr().out
