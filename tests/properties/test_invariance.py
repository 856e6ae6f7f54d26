"""One process, two, or micro-batches: the same run. What may differ does, and nothing besides."""

import pytest
import torch
import yaml

METHODS = ("dino", "byol", "moco-v2", "swav")
TIMING = {"images_per_second", "data_wait_fraction"}
MICRO_BATCHES = ["--runtime.accumulation", "4"]


@pytest.fixture(scope="module")
def alone(pair, tmp_path_factory):
    """Return what gives one process's run of a method, which is trained once."""
    runs = {}

    def run(method, *words, **options):
        key = str((method, words, options))
        if key not in runs:
            runs[key] = pair.cases.trained(tmp_path_factory.mktemp("alone") / "run", method, *words, **options)
        return runs[key]

    return run


def assert_same(tensors, others, within=1e-9):
    """Compare what two runs hold, moments in parts of the largest where that is above 1."""
    assert tensors.keys() == others.keys()
    far = {name: distance(value.double(), others[name].double()) for name, value in tensors.items()}
    assert {name: by for name, by in far.items() if not by <= within} == {}


def distance(tensor, other):
    return float((tensor - other).abs().amax() / other.abs().amax().clamp_min(1))


def assert_same_rows(rows, others, within=1e-9):
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - TIMING:
            assert row[name] == pytest.approx(other[name], rel=within, abs=within), (row["step"], name)


def assert_same_run(run, other):
    assert run["keys"] == other["keys"]
    assert_same_rows(run["rows"], other["rows"])
    assert_same(run["saved"], other["saved"])
    assert_same(run["held"], other["held"])


# The contract


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_are_one_process(pair, alone, method):
    """Losses, both networks, moments, center, queues; held by each process and saved by the first."""
    whole = alone(method)
    for run in pair.answers(method):
        assert run["world_size"] == 2
        assert_same_run(run, whole)


@pytest.mark.parametrize("method", METHODS)
def test_four_micro_batches_are_one_batch(alone, method):
    whole = alone(method)
    assert whole["world_size"] == 1
    assert_same_run(alone(method, *MICRO_BATCHES), whole)


def test_micro_batches_of_two_processes_are_one_batch(pair, alone):
    """The teacher is the student, whose drop paths must be the same in both of its forward passes."""
    for run in pair.answers("swav accumulated"):
        assert_same_run(run, alone("swav"))


@pytest.mark.parametrize("method", METHODS)
def test_single_precision_strays_little(pair, alone, method):
    """Adam divides by small numbers, which makes rounding grow."""
    whole = alone(method, dtype=torch.float32)
    others = [alone(method, *MICRO_BATCHES, dtype=torch.float32), *pair.answers(f"{method} float32")]
    for run in others:
        assert run["keys"] == whole["keys"]
        assert {value.dtype for value in run["held"].values() if value.is_floating_point()} == {torch.float32}
        assert_same(run["held"], whole["held"], within=1e-3)


def test_the_runs_cross_what_could_differ(alone):
    """An epoch's end, a queue's start, fullness and wrap, the end of a freeze, a warm-up, and of all clipping."""
    dino, moco, swav = (alone(method) for method in ("dino", "moco-v2", "swav"))
    assert dino["rows"][3]["epoch"] == 1
    temperatures = [row["teacher_temperature"] for row in dino["rows"]]
    assert temperatures[3] < temperatures[4] == temperatures[-1] == 0.07
    assert len({row["weight_decay"] for row in dino["rows"]}) == 10
    # 128 keys a step in a queue of 300.
    assert int(moco["held"]["collapse.pointer"]) == 1280 % 300
    assert swav["held"]["collapse.queue.rows"].any(-1).all()


def test_a_freeze_ends_within_the_runs(pair, tmp_path):
    name, starts = "student.head.prototypes.weight_v", []
    for stop in (1, 3, 4):
        starts.append(pair.cases.trained(tmp_path / str(stop), "dino", stop=stop)["held"][name])
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[1], starts[2])


# Resumed by another number of processes


@pytest.mark.parametrize("method", ["moco-v2", "swav"])
def test_two_processes_go_on_where_one_stopped(pair, alone, method):
    whole, stop = alone(method), pair.cases.STOP
    for run in pair.answers(f"{method} from one"):
        assert [*run["keys"]] == [*range(stop, 10)]
        assert_same_run(run, {**whole, "keys": {step: whole["keys"][step] for step in run["keys"]}})


@pytest.mark.parametrize("method", ["moco-v2", "swav"])
def test_one_process_goes_on_where_two_stopped(pair, alone, method):
    whole, stop = alone(method), pair.cases.STOP
    for run in pair.answers(f"{method} to one"):
        assert (run["step"], run["interrupted"]) == (stop, True)
        saved = {name: value for name, value in run["saved"].items() if name.startswith("model.collapse.")}
        held = {name.removeprefix("model."): value for name, value in saved.items()}
        assert_same(held, {name: value for name, value in run["held"].items() if name in held})
    run = pair.cases.trained(pair.folder / f"{method}-to-one", method, resume=True)
    assert run["world_size"] == 1
    assert_same_run(run, {**whole, "keys": {step: whole["keys"][step] for step in run["keys"]}})


def test_two_processes_start_from_the_same_weights_from_elsewhere(pair, alone):
    words = ["--method.init_from.weights", str(pair.folder / "start"), "--optimization.steps", "2"]
    whole = alone("byol", *words)
    for run in pair.answers("init_from"):
        assert_same_run(run, whole)
    recipe = yaml.safe_load((pair.folder / "init-from/recipe.yaml").read_text())
    assert len(recipe["method"]["init_from"]["fingerprint"]) == 16


# The declared exceptions


def test_batch_statistics_differ_and_nothing_besides(pair, alone):
    """Batch norms as shipped: a process normalises by its own images. Were they to normalise by their running
    statistics, nothing would differ."""
    shipped, norms = pair.cases.NORMED, torch.nn.modules.batchnorm._BatchNorm.eval
    whole, off = alone("dino", settings=shipped), alone("dino", settings=shipped, norms=norms)
    for run, run_off in zip(pair.answers("batch norm"), pair.answers("batch norm off"), strict=True):
        assert_same_run(run_off, off)
        first, last = (abs(run["rows"][i]["loss"] / whole["rows"][i]["loss"] - 1) for i in (0, -1))
        assert 1e-6 < first < 0.02
        assert last < 0.1
    mine, other = (run["held"] for run in pair.answers("batch norm"))
    apart = {name for name in mine if not torch.equal(mine[name], other[name])}
    assert apart == {name for name in mine if name.endswith(("running_mean", "running_var"))}


@pytest.mark.parametrize("accumulation", [1, 4])
def test_losses_that_couple_a_batch_refuse_micro_batches(pair, tmp_path, accumulation):
    words = ["--method.head", "MLPHead", "--method.collapse", "null", "--method.loss", "{InfoNCE: {negatives: batch}}"]
    words += ["--runtime.accumulation", str(accumulation), "--optimization.steps", "1"]
    code, said, exists = pair.cases.refused(tmp_path / "run", *words)
    if accumulation == 1:
        assert (code, exists) == (0, True)
        return
    assert (code, exists) == (2, False)
    assert said.startswith("sslkit: runtime.accumulation: InfoNCE compares the images of a batch with one another")
    assert said.endswith("--runtime.accumulation 1\n")


def test_a_batch_that_cannot_be_shared_is_refused_by_all(pair):
    for code, said, exists in pair.answers("odd batch"):
        assert (code, exists) == (2, False)
        assert said == "sslkit: optimization.batch_size: 63 cannot be shared by 2 processes\n"
