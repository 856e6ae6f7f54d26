"""Training of a recipe: build it, initialise its networks, and run the trainer."""

import copy
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.text import Text

from sslkit.checkpoint.init_from import Start, read_start
from sslkit.checks.failures import exits_as_errors
from sslkit.distributed import why_alone, world_size
from sslkit.explain.recommendations import recommendations, run_context
from sslkit.health.collapse_monitor import CollapseMonitor
from sslkit.health.images import image_causes
from sslkit.health.start_regression import StartRegression
from sslkit.method.branch import Branch
from sslkit.plugins import active
from sslkit.progress import print_line, working
from sslkit.recipe.loading import Recipe
from sslkit.recipe.sections import BuiltRecipe
from sslkit.recommendation import Recommendation
from sslkit.run_folder.folder import Record, RunFolder
from sslkit.training.attention import choose_attention
from sslkit.training.setup import range_note, size_note
from sslkit.training.trainer import Trainer


@exits_as_errors()
def train(recipe: Recipe, run_dir: Path | None = None, resume: bool = False, console: Console | None = None) -> Trainer:
    """Train a recipe and return the trainer, whose run folder holds the results.

    Args:
        recipe: from `sslkit.recipe.load`.
        run_dir: the run folder; None is ``runs/<recipe>/<date-time>``.
        resume: continue from the newest checkpoint of the folder, or start from step 0 if it has none.
        console: where progress and warnings are printed; None is standard error.

    Raises:
        SSLKitError: the recipe, the data or the folder cannot be used; nothing is lost or half-written.
        RunError: a component called ``sys.exit``.
    """
    with working("preparing the run", plain=False):
        run, start, found = _prepare(recipe, run_dir or fresh_folder(Path("runs") / recipe.name), resume, console)
    if run.is_main:
        _say(run, start, found)
    run.execute(resume)
    return run


def _prepare(
    recipe: Recipe, folder: Path, resume: bool, console: Console | None
) -> tuple[Trainer, Start | None, Sequence[Recommendation]]:
    """Return the trainer, what its networks start from, and the recommendations on the recipe."""
    # Before the networks are built and the images are indexed, which takes long for a large data set.
    RunFolder(folder).check_free(resume)
    builder = recipe.builder()
    built = recipe.build(builder)
    choose_attention(recipe, built, folder)
    teacher = None
    if built.method.init == "independent":
        # Weights of another seed, as BYOL's published code has.
        teacher = Branch(*recipe.build_networks(built.seed + 1), separate_views=built.method.separate_views)
    # Before weights are loaded: evaluations compare with this network.
    untrained = None if built.method.init_from is None else copy.deepcopy(built.method.backbone)
    # Before the record, whose recipe and identity hold the fingerprint of the weights.
    start = _initialise(recipe, built, folder, teacher)
    sources = [source for source in (built.data.train, built.data.test) if source is not None]
    record = Record(
        name=recipe.name,
        recipe=recipe.to_yaml(),
        identity=recipe.identity_in(folder, [source.fingerprint() for source in sources]),
        plugins=[{"name": p.name, "origin": p.origin, "hooks": p.hooks} for p in active().found if not p.error],
    )
    run = Trainer(built, record, folder, teacher, console, untrained)
    # After the trainer has joined the process group, which gives the number of processes.
    found = recommendations(recipe, builder, run_context(builder, len(built.data.train), world_size()))
    of_images = partial(image_causes, built.data.train)
    built.runtime.callbacks.append(CollapseMonitor(built.runtime.on_collapse, found, of_images))
    return run, start, found


def _say(run: Trainer, start: Start | None, found: Sequence[Recommendation]) -> None:
    """Print what the run is, which images it found and what it starts from, and warnings."""
    data = run.built.data
    for line in _header(run):
        run.console.print(Text(line), soft_wrap=True)
    if reason := why_alone():
        hint = "torchrun --nproc-per-node N -m sslkit starts N that do"
        print_line(run.console, f"warning: trains alone: {reason}; {hint}", "yellow")
    for key, source in (("data.train", data.train), ("data.test", data.test)):
        if summary := source.summary() if source else "":
            print_line(run.console, f"{key}: {summary}")
    if note := range_note(run.built):
        print_line(run.console, f"warning: {note}", "yellow")
    if note := size_note(run.built):
        print_line(run.console, note)
    for line in start.report(data) if start else ():
        print_line(run.console, line)
    for recommendation in found:
        if recommendation.is_warning:
            print_line(run.console, f"warning: {recommendation}", "yellow")


def _header(run: Trainer) -> Iterator[str]:
    """Yield what the run is, in lines: its length, what it computes on, and where it writes."""
    clock, images = run.clock, len(run.built.data.train)
    yield (
        f"{run.name} · {images:,} images, {clock.total_steps:,} steps of {run.built.optimization.batch_size} · "
        f"{run.record.device}, {run.record.precision}"
    )
    yield f"Run folder: {run.run_dir}"


def _initialise(recipe: Recipe, built: BuiltRecipe, folder: Path, teacher: Branch | None) -> Start | None:
    """Load the weights of ``method.init_from`` into the networks of a new run.

    Args:
        recipe: gets the fingerprint of the weights, if it has none.
        built: the recipe built, whose networks get the weights.
        folder: the run folder.
        teacher: a teacher with weights of its own, or None.

    Returns:
        What was loaded; None without ``init_from``, or where the run resumes from a checkpoint.
    """
    section = built.method.init_from
    resumes = any(RunFolder(folder).checkpoints.glob("step-*"))
    if section is not None:
        built.runtime.callbacks.append(StartRegression())
    if section is None or (resumes and section.fingerprint):
        return None
    start = read_start(section, built.method, built.views.sizes)
    recipe.root.at("method.init_from").given["fingerprint"] = start.fingerprint
    # The weights come from the checkpoint; without the fingerprint the recipe would have another identity.
    if resumes:
        return None
    method = built.method
    start.give(method.backbone, method.head, method.predictor, method.collapse)
    if teacher is not None:
        start.give(teacher.backbone, teacher.head)
    return start


def fresh_folder(place: Path) -> Path:
    """Return the path of a folder in ``place`` that does not exist, named after the time."""
    name = datetime.now().strftime("%Y-%m-%d-%H%M%S")
    names = (name if attempt == 1 else f"{name}-{attempt}" for attempt in count(1))
    return next(place / name for name in names if not (place / name).exists())
