"""A recipe to a run."""

from datetime import datetime
from itertools import count
from pathlib import Path

from rich.console import Console

from sslkit.plugins import active
from sslkit.recipe.loading import Recipe
from sslkit.student_teacher import Branch
from sslkit.training.loop import Run
from sslkit.training.run_folder import Record, RunFolder


def train(recipe: Recipe, run_dir: Path | None = None, resume: bool = False, console: Console | None = None) -> Run:
    """Train a recipe and return the run, whose folder holds everything it leaves.

    Args:
        recipe: from `sslkit.recipe.load`.
        run_dir: the run folder; None is ``runs/<recipe>/<date-time>``.
        resume: go on from the folder's newest checkpoint, or start if it has none.
        console: where progress is shown; None is standard error.

    Raises:
        SSLKitError: the recipe, the data or the folder cannot be used; nothing is lost or half-written.
    """
    folder = run_dir or fresh_folder(Path("runs") / recipe.name)
    RunFolder(folder).check_free(resume)
    parts = recipe.build()
    teacher = None
    if parts.method.init == "independent":
        teacher = Branch(*recipe.build_networks(parts.seed + 1))
    sources = [source for source in (parts.data.train, parts.data.test) if source is not None]
    record = Record(
        name=recipe.name,
        recipe=recipe.to_yaml(),
        identity=recipe.identity([source.fingerprint() for source in sources]),
        plugins=[{"name": p.name, "origin": p.origin, "hooks": p.hooks} for p in active().found if not p.error],
    )
    run = Run(parts, record, folder, teacher, console)
    run.execute(resume)
    return run


def fresh_folder(place: Path) -> Path:
    """Return a folder in ``place``, named after the time, that does not exist."""
    name = datetime.now().strftime("%Y-%m-%d-%H%M%S")
    names = (name if attempt == 1 else f"{name}-{attempt}" for attempt in count(1))
    return next(place / name for name in names if not (place / name).exists())
