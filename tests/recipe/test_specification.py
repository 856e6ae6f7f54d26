"""What a recipe says, against the signatures of its classes: mistakes get one message with the key."""

from pathlib import Path

import pytest

from sslkit.errors import RecipeError, SSLKitError
from sslkit.plugins import active
from sslkit.recipe import load
from sslkit.recipe.specification import fill

BASE = Path(__file__).with_name("tiny.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["--methd.teacher", "x"], "unknown key 'methd'. Did you mean 'method'?"),
        (["--method.teachr", "TinyTeacher"], "unknown key 'method.teachr'. Did you mean 'teacher'?"),
        (
            ["--method.teacher.momentumm", "1"],
            "unknown key 'method.teacher.momentumm' of TinyTeacher. Did you mean 'momentum'?",
        ),
        (
            ["--method.teacher", "TinyTeachr"],
            "method.teacher: unknown teacher update 'TinyTeachr'. Did you mean 'TinyTeacher'?",
        ),
        (
            ["--method.teacher.momentum", "{Cosin: {}}"],
            "method.teacher.momentum: unknown schedule 'Cosin'. Did you mean 'Cosine'?",
        ),
        (["--method.teacher.momentum", "high"], "method.teacher.momentum must be a number or a schedule, not 'high'"),
        (["--method.teacher.momentum.start", "high"], "method.teacher.momentum.start must be a number, not 'high'"),
        (["--method.teacher.momentum.warmup", "3"], "method.teacher.momentum.warmup must be text"),
        (["--method.teacher.momentum.warmup", "3 weeks"], "method.teacher.momentum: a duration is written like"),
        (["--method.teacher", "3"], "method.teacher must be a teacher update, written Name or"),
        (["--method.teacher", "{TinyTeacher: {}, momentum: 1}"], "unknown key 'method.teacher.TinyTeacher'"),
        (["--method.head", "null"], "method.head must be a head, not null"),
        (["--method", "3"], "method is a section with keys backbone, head"),
        (["--optimization.batch_size", "2.5"], "optimization.batch_size must be a whole number, not 2.5"),
        (["--optimization.batch_size", "true"], "optimization.batch_size must be a whole number, not True"),
        (["--optimization.batch_size", "0"], "optimization.batch_size is at least 1, not 0"),
        (["--optimization.steps", "0"], "optimization.steps is at least 1, not 0"),
        (["--optimization.epochs", "0"], "optimization.epochs is above 0, not 0"),
        (["--optimization.epochs", ".nan"], "optimization.epochs must be a number, not nan"),
        (["--optimization.lr_reference_batch", "0"], "optimization.lr_reference_batch is at least 1, not 0"),
        (["--optimization.clip_grad_norm", "0"], "optimization.clip_grad_norm is above 0, not 0"),
        (["--optimization.lr", "-1e-3"], "optimization.lr is at least 0, not -0.001"),
        (["--optimization.lr", ".inf"], "optimization.lr is at least 0 and finite, not inf"),
        (
            ["--optimization.lr", "{Cosine: {start: -4e-3, end: 0}}"],
            "optimization.lr.start is at least 0, not -0.004",
        ),
        (
            ["--optimization.lr", "{Cosine: {start: 1, end: 0, warmup: 3 steps, every: epoch}}"],
            "optimization.lr: Cosine moves once an epoch, so its warmup is a whole number of epochs, not 3 steps",
        ),
        (["--runtime.accumulation", "0"], "runtime.accumulation is at least 1, not 0"),
        (
            ["--runtime.accumulation", "9"],
            "runtime.accumulation: the 8 images of a process cannot be cut into 9 micro-batches; take 1 to 8",
        ),
        (["--optimization.weight_decay", "-1"], "optimization.weight_decay is at least 0, not -1"),
        (["--data.num_images", "0"], "data.num_images is at least 1, not 0"),
        (["--data.channels", "0"], "data.channels is at least 1, not 0"),
        (["--runtime.checkpoint_every", "0 epochs"], "runtime.checkpoint_every is longer than nothing, not '0 epochs'"),
        (["--runtime.log_every", "0"], "runtime.log_every is at least 1, not 0"),
        (["--evaluation.every", "0 epochs"], "evaluation.every is longer than nothing, not '0 epochs'"),
        (["--evaluation.batch_size", "0"], "evaluation.batch_size is at least 1, not 0"),
        (["--evaluation.view_size", "0"], "evaluation.view_size is at least 1, not 0"),
        (["--epochs", "10"], "unknown key 'epochs'. Did you mean 'optimization.epochs'?"),
        (["--batch_size", "10"], "Did you mean 'optimization.batch_size' or 'evaluation.batch_size'?"),
        (["--teacher", "EMA"], "Did you mean 'method.teacher'?"),
        (["--model", "resnet18"], "unknown key 'model'. Did you mean 'method.backbone'?"),
        (["--learning-rate", "0.1"], "Did you mean 'optimization.lr'?"),
        (["--method.backbone", "timmbackbone"], "written Name or {Name: {argument: value}}"),
        (["--method.backbone", "resnet18"], "--method.backbone '{TimmBackbone: {name: resnet18}}'"),
        (["--evaluation.crop_pct", "1.2"], "evaluation.crop_pct is above 0 and at most 1, not 1.2"),
        (["--evaluation.crop_pct", "0"], "evaluation.crop_pct is above 0 and at most 1, not 0"),
        (["--evaluation.crop_pct", "0.5", "--evaluation.resize", "8"], "both choose the resized side"),
        (
            ["--evaluation.view_size", "9", "--evaluation.resize", "8"],
            "evaluation.resize is at least evaluation.view_size, 9, not 8",
        ),
        (["--seed", f"{2**63}"], "seed is between 0 and 2**63 - 1, not 9223372036854775808"),
        (["--seed", "99999999999999999999999"], "--seed '99999999999999999999999': a whole number has at most 64 bits"),
        (["--optimization.lr", "'0.1'", "--optimization.batch_size", "'8'"], "not '8'. Leave out the quotes."),
        (["--optimization.lr", "'0.1'"], "optimization.lr must be a number or a schedule, not '0.1'. Leave out"),
        (["--optimization.batch_size", "0123"], "optimization.batch_size must be a whole number, not '0123'"),
        (["--optimization.batch_size", "1:30"], "optimization.batch_size must be a whole number, not '1:30'."),
        (["--data.mean", "[.inf, 0, 0]"], "data.mean is finite numbers, not [inf, 0.0, 0.0]"),
        (["--data.std", "[1, 1, 0]"], "data.std is above 0 in every channel, not [1.0, 1.0, 0.0]"),
        (["--data.value_range", "[1, 0]"], "data.value_range is the value of black and that of white"),
        (["--data.value_range", "[0, .inf]"], "data.value_range is the value of black and that of white"),
        (["--data.value_range", "[0]"], "data.value_range is the value of black and that of white"),
        (["--runtime.num_workers", "100000"], "runtime.num_workers is at most 1024, not 100000"),
        (["--runtime.threads", "100000"], "runtime.threads is at most 4096, not 100000"),
        (["--runtime.unreadable_limit", "1.5"], "runtime.unreadable_limit is a share, at most 1, not 1.5"),
        (
            ["--optimization.optimizer", "{AdamW: {eps: -1}}"],
            "optimization.optimizer: the eps of AdamW lies in [0, inf)",
        ),
        (["--optimization.optimizer", "{AdamW: {betas: [0.9, 1]}}"], "the betas of AdamW lies in [0, 1), not 1"),
        (["--data.mean", "[.nan, 0, 0]"], "data.mean must be a list, each a number, not [nan, 0, 0]."),
        (["--data.mean", "[0, '1', 0]"], "data.mean must be a list, each a number, not [0, '1', 0]."),
        (["--data.mean", "'[0, 0, 0]'"], "data.mean must be a list, each a number, not '[0, 0, 0]'."),
        (["--seed", "-1"], "seed is between 0 and 2**63 - 1, not -1"),
        (["--method.head.num_prototypes", "-3"], "method.head: "),
        (["--method.teacher", "{EMA: {momentum: 1.5}}"], "method.teacher: the momentum of EMA lies in [0, 1], not 1.5"),
        (
            ["--method.teacher", "{EMA: {momentum: {Cosine: {start: 2, end: 1}}}}"],
            "method.teacher: the momentum.start of EMA lies in [0, 1], not 2",
        ),
        (
            ["--evaluation.evaluators", "[{KNN: {k: [0]}}]"],
            "evaluation.evaluators.0: the k of KNN lies in [1, inf), not 0",
        ),
        (
            ["--evaluation.evaluators", "[{KNN: {temperature: 0}}]"],
            "evaluation.evaluators.0: the temperature of KNN lies in (0, inf), not 0",
        ),
        (["--optimization.optimizer.betas", "[1]"], "optimization.optimizer.betas must be a list of 2, each a number"),
        (
            ["--optimization.freeze.bone", "1 epochs"],
            "unknown key 'optimization.freeze.bone'. Did you mean 'backbone'?",
        ),
        (["--optimization.freeze.backbone", "1 day"], "optimization.freeze.backbone: a duration is written like"),
        (["--optimization.freeze.backbone", "3"], "optimization.freeze must be a mapping"),
        (["--method.batch_norm", "synchronised"], "method.batch_norm must be one of synchronized, local or a whole"),
        (["--method.batch_norm", "true"], "method.batch_norm must be one of synchronized, local or a whole number"),
        (["--method.batch_norm", "null"], "method.batch_norm must be one of synchronized, local or a whole number"),
        (["--method.batch_norm", "1"], "method.batch_norm is at least 2, not 1"),
        (["--method.separate_views", "1"], "method.separate_views must be true or false, not 1"),
        (["--precision", "fp8"], "precision must be one of auto, fp32, bf16, fp16, not 'fp8'"),
        (["--runtime.compile", "1"], "runtime.compile must be true or false, not 1"),
        (
            ["--runtime.callbacks", "[Tiny]"],
            "runtime.callbacks.0: unknown callback 'Tiny'. Did you mean 'TinyCallback'?",
        ),
        (
            ["--evaluation.evaluators", "[{TinyEvaluator: {k: many}}]"],
            "evaluation.evaluators.0.k must be a whole number",
        ),
        (["--evaluation.evaluators", "TinyEvaluator"], "evaluation.evaluators must be a list, each an evaluator"),
        (
            ["--evaluation.networks", "[teacher, pupil]"],
            "evaluation.networks must be a list, each one of teacher, student",
        ),
        (
            ["--method.collapse", "{Centering: {temperature: null}}", "--method.loss", "CrossEntropy"],
            "method.loss: CrossEntropy takes probabilities, but Centering yields logits",
        ),
        (["--method.student_views", "[0, 1, 0]"], "method.student_views: [0, 1, 0] names a view twice"),
        (["--method.teacher_views", "[1, 1]"], "method.teacher_views: [1, 1] names a view twice"),
        (["--method.student_views", "[0, 14]"], "method.student_views: there is no view 14; the ids are 0 to 3"),
        (
            ["--method.student_views", "[0]", "--method.teacher_views", "[0]"],
            "method.student_views [0] and method.teacher_views [0] hold no two different views",
        ),
        (["--data.mean", "[0.5]"], "data.mean has 1 values, but data.channels is 3"),
        (["--views", "sslkit.nowhere.Views"], "views: no installed plugin offers 'sslkit.nowhere.Views', and"),
    ],
)
def test_mistakes_get_one_message_with_the_key(overrides, said, base):
    with pytest.raises(SSLKitError) as refused:
        base(*overrides).build()
    assert said in str(refused.value)


def test_a_mistake_in_a_file_names_the_file(write):
    with pytest.raises(RecipeError, match=r"unknown key 'method\.hed'.*some\.yaml\)$"):
        load(write(BASE.replace("head:", "hed:")))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  head: TinyHead\n", "method.head is missing: it must be a head, one of "),
        ("views: TinyViews\n", "views is missing: it must be a view maker"),
        (
            "optimization: {optimizer: TinyOptimizer, batch_size: 8, epochs: 2, lr: 1e-3}\n",
            "optimization.optimizer is missing",
        ),
    ],
)
def test_what_is_missing_is_named(line, said, write):
    assert line in BASE
    with pytest.raises(RecipeError) as refused:
        load(write(BASE.replace(line, "")))
    assert said in str(refused.value)


def test_an_argument_that_a_signature_does_not_name_is_found_again():
    class Open:
        def __init__(self, **options):
            pass

    assert fill(Open, {"zz": 3}, "key", active().registry).at("zz") == 3
