"""Where a run starts: at its newest checkpoint, or at step 0."""

from dataclasses import dataclass

from sslkit.checkpoint.manager import CheckpointManager
from sslkit.contracts import ImageSource
from sslkit.distributed import rank, wait_for_all
from sslkit.run_folder.atomic_write import writable
from sslkit.run_folder.folder import Record, RunFolder
from sslkit.run_folder.metrics_log import StepRows, read_metrics
from sslkit.run_folder.results import drop_results, read_results
from sslkit.run_folder.skipped_steps import SkippedSteps
from sslkit.run_folder.trackers import Trackers
from sslkit.types import Preprocessing


@dataclass(frozen=True)
class Resumed:
    """Where a run stands when it starts.

    Args:
        step: optimizer steps taken before.
        rows: metrics.jsonl, up to that step.
        skipped: skipped.jsonl, up to that step.
    """

    step: int
    rows: StepRows
    skipped: SkippedSteps


@dataclass(frozen=True)
class ResumePolicy:
    """Goes on from the newest whole checkpoint and drops what was written after it, since those steps are repeated.

    Args:
        folder: of the run.
        record: what the folder says about the run.
        preprocessing: of its images.
        checkpoints: of the run.
        trackers: of the run.
        source: the training images, whose files skipped.jsonl names.
    """

    folder: RunFolder
    record: Record
    preprocessing: Preprocessing
    checkpoints: CheckpointManager
    trackers: Trackers
    source: ImageSource

    def start(self, resume: bool) -> Resumed:
        """Prepare the folder and load the newest checkpoint, if there is one and ``resume``; every process calls it.

        Raises:
            SSLKitError: the folder is another run's, or has a run that is not to be resumed.
            RunError: it cannot be written to.
        """
        is_main = rank() == 0
        if is_main:
            self.trackers.start(self.record.recipe)
            self.folder.start(self.record, self.preprocessing, resume)
        wait_for_all()
        with writable(self.folder.path):
            step = self.checkpoints.load() or 0
            if is_main:
                metrics, results = read_metrics(self.folder.metrics), read_results(self.folder.results)
                self.trackers.resume(step, metrics, results)
                # The evaluation at the checkpoint, or the baselines before the first step, are done again too.
                drop_results(self.folder.results, since=step)
            rows = StepRows(self.folder.metrics, step, is_main)
            scale = self.checkpoints.executor.scale
            skipped = SkippedSteps(self.folder.skipped, step, is_main, scale, self.source.places)
        return Resumed(step, rows, skipped)
