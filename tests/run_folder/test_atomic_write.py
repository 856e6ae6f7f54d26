"""Writing on disks that are full or read-only: real ones, where the system lets us mount them."""

import ctypes
import multiprocessing
import os
import sys
import traceback
from pathlib import Path

import pytest
import torch

from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.checkpoint.files import Progress, load_newest, save_checkpoint
from sslkit.collapse import Centering
from sslkit.errors import SSLKitError
from sslkit.heads.dino_head import DINOHead
from sslkit.losses import CrossEntropy
from sslkit.method.branch import Branch
from sslkit.method.executor import Executor
from sslkit.method.student_teacher import StudentTeacher
from sslkit.run_folder.atomic_write import sync, writable, write_text
from sslkit.run_folder.folder import RunFolder
from sslkit.run_folder.lock import alone_in
from sslkit.run_folder.metrics_log import StepRows, read_metrics
from sslkit.teachers import EMA

pytestmark = pytest.mark.forks

NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000
READ_ONLY = 1


def mount(folder, flags, options):
    """Give this process alone a file system of its own in a folder, as any user may."""
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    if libc.unshare(NEW_USER | NEW_MOUNTS):
        raise PermissionError(ctypes.get_errno(), "unshare")
    for name, text in (("uid_map", f"0 {user} 1"), ("setgroups", "deny"), ("gid_map", f"0 {group} 1")):
        Path("/proc/self", name).write_text(text)
    if libc.mount(b"none", str(folder).encode(), b"tmpfs", flags, options.encode()):
        raise PermissionError(ctypes.get_errno(), "mount")


def _work(answers, folder, flags, options, work):
    try:
        mount(folder, flags, options)
    except PermissionError as error:
        answers.put(error)
    else:
        try:
            answers.put(work(folder))
        except Exception:
            answers.put(traceback.format_exc())


def on_a_disk(folder, flags, options, work):
    if sys.platform != "linux" or torch.cuda.is_available():
        pytest.skip("forks, on a CPU alone")
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    process = fork.Process(target=_work, args=(answers, folder, flags, options, work), daemon=True)
    process.start()
    answer = answers.get(timeout=60)
    process.join()
    if isinstance(answer, PermissionError):
        pytest.skip(f"nothing can be mounted here: {answer}")
    return answer


def fill(path):
    """Save more and more on a small disk, then make room; return what happened."""
    folder = RunFolder(path)
    args = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16], "stem_type": "deep", "stem_width": 4}
    backbone = TimmBackbone("resnet18", small_image_stem=True, model_args=args)
    student = Branch(backbone, DINOHead(16, num_prototypes=32, hidden_dim=256, embed_dim=32))
    model = StudentTeacher(student, teacher_update=EMA(0.9), collapse=Centering(32), loss=CrossEntropy())
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    rows, saved, reasons = StepRows(folder.metrics), [], []
    while len(reasons) < 6:
        step = len(saved) + len(reasons) + 1
        rows.write({"step": step, "fill": "x" * 200_000})
        try:
            rows.sync()
            save_checkpoint(folder.checkpoints, Executor().state_dict(model, optimizer), Progress(step, "me"), keep=99)
            folder.save_backbones({"teacher": backbone})
            saved.append(step)
        except OSError as error:
            reasons.append(str(error))
    left = [file.name for file in path.rglob(".*")]
    loaded = load_newest(folder.checkpoints, model, optimizer, "me")
    whole = (folder.path / "teacher/model.safetensors").stat().st_size
    before = [row["step"] for row in read_metrics(folder.metrics)]
    save_checkpoint(folder.checkpoints, Executor().state_dict(model, optimizer), Progress(loaded, "me"), keep=1)
    for old in sorted(folder.checkpoints.iterdir())[:-1]:
        (old / "state.safetensors").unlink()
    rows.sync()
    return saved, reasons, left, loaded, whole, before, [row["step"] for row in read_metrics(folder.metrics)]


def test_a_disk_that_is_really_full(tmp_path):
    saved, reasons, left, loaded, whole, before, after = on_a_disk(tmp_path, 0, "size=4m", fill)
    assert saved == list(range(1, len(saved) + 1))
    assert len(saved) >= 2
    assert all("No space left on device" in reason for reason in reasons)
    assert left == []
    assert loaded >= saved[-1]
    assert whole > 10_000
    # Rows that found no room were written when there was some, and none was cut short.
    assert before == after[: len(before)]
    assert len(before) < len(after)
    assert after == [*range(1, len(saved) + 7)]


def hold(folder):
    try:
        with alone_in(folder / "run"):
            return "held"
    except SSLKitError as error:
        return str(error)


def test_a_disk_that_is_really_read_only(tmp_path):
    said = on_a_disk(tmp_path, READ_ONLY, "size=1m", hold)
    assert said == (f"--run-dir: {tmp_path}/run cannot be written: [Errno 30] Read-only file system: '{tmp_path}/run'")


def test_text_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    write_text(path, "first")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "second \udcff")
    assert path.read_text() == "first"
    write_text(path, "third")
    assert path.read_text() == "third"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_is_not_there_cannot_be_synced(tmp_path):
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "none")


def test_other_errors_are_not_called_unwritable(tmp_path):
    with pytest.raises(ZeroDivisionError), writable(tmp_path):
        raise ZeroDivisionError
    with pytest.raises(SSLKitError, match=f"--run-dir: {tmp_path} cannot be written: full"), writable(tmp_path):
        raise OSError("full")


def test_links_are_replaced_and_their_targets_kept(tmp_path):
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "results.json").symlink_to("kept")
    (tmp_path / ".results.json.tmp").symlink_to("kept")
    write_text(tmp_path / "results.json", "[]")
    assert [path.name for path in tmp_path.iterdir() if path.is_symlink()] == []
    assert ((tmp_path / "results.json").read_text(), (tmp_path / "kept").read_text()) == ("[]", "kept")
