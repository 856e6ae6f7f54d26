"""Processes as people start them: torchrun on one node and on two, accelerate launch, plain Python, SLURM."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sslkit.run_folder.metrics_log import read_metrics

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
TRAIN = ["-m", "sslkit", "train"]
TIMING = {"images_per_second", "data_wait_fraction"}
LONGEST = 300


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    """Return the words after ``sslkit train`` of a run of seconds."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(
        "method:\n"
        "  backbone: {TimmBackbone: {name: test_vit, drop_path_rate: 0.2, model_args: {img_size: 32}}}\n"
        "  head: {DINOHead: {num_prototypes: 32, hidden_dim: 16, embed_dim: 8, num_layers: 2}}\n"
        "  teacher: {EMA: {momentum: 0.9}}\n"
        "  collapse: Centering\n"
        "  loss: CrossEntropy\n"
        "views: {MultiCrop: {crop_on: device, canvas_size: 32, global_size: 32, num_local_views: 0}}\n"
        "data: {train: {Textures: {num_images: 80}}}\n"
        "optimization: {optimizer: AdamW, batch_size: 16, epochs: 2, lr: 0.001}\n"
        "precision: fp32\n"
        "runtime: {device: cpu, threads: 1, num_workers: 0, log_every: 1}\n"
    )
    return [str(path)]


def started(command, environment=None):
    everything = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    words = [str(word) for word in command]
    return subprocess.Popen(words, env=everything, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextmanager
def ended(processes):
    """Leave no process behind."""
    try:
        yield
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()


def finished(*processes):
    """Wait, and return what each printed."""
    with ended(processes):
        return [process.communicate(timeout=LONGEST)[0] for process in processes]


def done(command, environment=None):
    process = started(command, environment)
    (said,) = finished(process)
    assert process.returncode == 0, said
    assert "Traceback" not in said, said
    return said


def world_size(folder):
    return json.loads((folder / "environment.json").read_text())["world_size"]


def rows(folder):
    return [{n: v for n, v in row.items() if n not in TIMING} for row in read_metrics(folder / "metrics.jsonl")]


def saved(folder):
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    return newest.name, load_file(newest / "state.safetensors")


def assert_same_end(folder, other):
    assert rows(folder) == rows(other)
    (name, mine), (expected, theirs) = saved(folder), saved(other)
    assert name == expected
    assert [each for each in theirs if not mine[each].equal(theirs[each])] == []


def wait_for(moment):
    end = time.monotonic() + LONGEST
    while not moment():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="session")
def by_torchrun(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("torchrun") / "run"
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", *TRAIN, *recipe, "--run-dir", folder]
    return folder, done(command)


def test_torchrun(by_torchrun):
    folder, said = by_torchrun
    assert world_size(folder) == 2
    assert [row["step"] for row in rows(folder)] == list(range(1, 11))
    assert said.count("Run folder:") == 1


def test_torchrun_on_two_nodes(by_torchrun, recipe, tmp_path):
    """Two agents on one machine, each with a process of its own, meet at an address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    meet = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint]
    command = [*TORCHRUN, *meet, "--rdzv-id", "tests", *TRAIN, *recipe, "--run-dir", tmp_path / "run"]
    agents = [started(command), started(command)]
    said = finished(*agents)
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert world_size(tmp_path / "run") == 2
    assert_same_end(tmp_path / "run", by_torchrun[0])


def test_accelerate_launch_without_gpus_is_one_process_and_says_so(recipe, tmp_path):
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    command = [*launch, "--mixed_precision", "no", "--dynamo_backend", "no", *TRAIN[:2], TRAIN[2], *recipe]
    said = done([*command, "--run-dir", tmp_path / "run"])
    assert "warning: trains alone: accelerate launch was asked for several processes" in said
    assert world_size(tmp_path / "run") == 1


def test_plain_python_is_one_process_and_silent_about_it(recipe, tmp_path):
    said = done([sys.executable, *TRAIN, *recipe, "--run-dir", tmp_path / "run"])
    assert "trains alone" not in said
    assert world_size(tmp_path / "run") == 1


def test_torchrun_hands_sigterm_on_and_the_run_goes_on_later(recipe, tmp_path):
    words = [*recipe, "--optimization.epochs", "12", "--resume"]
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", *TRAIN, *words, "--run-dir"]
    agent = started([*command, tmp_path / "run"])
    with ended([agent]):
        wait_for(lambda: agent.poll() is not None or len(rows(tmp_path / "run")) > 2)
        agent.send_signal(signal.SIGTERM)
        (said,) = finished(agent)
    assert "everything is saved" in said
    name, _ = saved(tmp_path / "run")
    assert 2 < int(name.removeprefix("step-")) < 60
    done([*command, tmp_path / "run"])
    done([*command, tmp_path / "whole"])
    assert_same_end(tmp_path / "run", tmp_path / "whole")


# SLURM

SRUN = """\
#!/usr/bin/env bash
# Start the tasks, keep their ids for scancel, answer with the largest exit code.
for ((task = 0; task < SLURM_NTASKS; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_STEP_NUM_TASKS=$SLURM_NTASKS "$@" &
    tasks+=($!)
done
echo "${tasks[@]}" > "$FAKES/tasks"
largest=0
for task in "${tasks[@]}"; do
    wait "$task"; code=$?
    ((code > largest)) && largest=$code
done
exit $largest
"""
SCANCEL = '#!/usr/bin/env bash\necho "$@" >> "$FAKES/cancelled"\nkill -TERM $(cat "$FAKES/tasks")\n'
SCONTROL = '#!/usr/bin/env bash\nif [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$FAKES/controlled"; fi\n'


@pytest.fixture
def slurm(tmp_path):
    """Return the environment of a batch script, with commands that play SLURM on this machine."""
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    for name, script in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL)):
        (fakes / name).write_text(script)
        (fakes / name).chmod(0o755)
    path = os.pathsep.join([str(fakes), str(Path(sys.executable).parent), os.environ["PATH"]])
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "here", "SLURM_NTASKS": "2"}
    return {"PATH": path, "FAKES": str(fakes), **job}


def test_a_slurm_job_saves_before_its_end_is_requeued_and_goes_on(slurm, recipe, tmp_path):
    fakes, words = Path(slurm["FAKES"]), [*recipe, "--optimization.epochs", "12", "--run-dir"]
    script = ["bash", ROOT / "docs/slurm.sbatch", *words]
    first = started([*script, tmp_path / "run"], slurm)
    with ended([first]):
        wait_for(lambda: first.poll() is not None or len(rows(tmp_path / "run")) > 2)
        signalled = time.monotonic()
        first.send_signal(signal.SIGUSR1)
        (said,) = finished(first)
    assert first.returncode == 130, said
    assert time.monotonic() - signalled < 60
    assert "everything is saved" in said
    assert (fakes / "cancelled").read_text() == f"--signal=TERM {slurm['SLURM_JOB_ID']}\n"
    assert (fakes / "controlled").read_text() == f"requeue {slurm['SLURM_JOB_ID']}\n"
    assert world_size(tmp_path / "run") == 2
    assert int(saved(tmp_path / "run")[0].removeprefix("step-")) < 60
    done([*script, tmp_path / "run"], slurm)
    done([*script, tmp_path / "whole"], slurm)
    assert_same_end(tmp_path / "run", tmp_path / "whole")
    # A job that is done is not queued again.
    assert (fakes / "controlled").read_text().count("requeue") == 1


def test_a_slurm_job_that_fails_is_not_requeued(slurm, tmp_path):
    script = ["bash", ROOT / "docs/slurm.sbatch", "no-such-recipe", "--run-dir", tmp_path / "run"]
    job = started(script, slurm)
    (said,) = finished(job)
    assert job.returncode == 2
    assert "no-such-recipe" in said
    assert not (Path(slurm["FAKES"]) / "controlled").exists()
