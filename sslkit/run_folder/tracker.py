"""Log a run to one of accelerate's trackers, and resume it there, which accelerate does not do."""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers
from accelerate.utils import LoggerType

from sslkit.errors import RecipeError, UnknownName, install_command

logger = logging.getLogger("sslkit.training")

KEY = "runtime.trackers"
PROJECT = ("project", "project_name", "experiment_name")
"""Names of the argument that accelerate passes to trackers by position."""

Moment = tuple[int, str]
"""A step, and the network that was evaluated; empty for a row of metrics.jsonl."""


@dataclass(frozen=True)
class ResumeSupport:
    """How a tracker names a run, and resumes it.

    Args:
        fresh: arguments of a new run, given the run folder.
        name: of the run, given what accelerate's tracker wraps.
        again: further arguments to resume the run of that name.
        illegal: characters that a metric's name may not have, as a regular expression.
        drops: whether the tracker itself drops what is logged of a step twice. Then what it lost may be logged again.
    """

    fresh: Callable[[Path], dict[str, Any]]
    name: Callable[[Any], str]
    again: Callable[[str], dict[str, Any]]
    illegal: str | None = None
    drops: bool = False


RESUME_SUPPORT = {
    # Purged from step 0, so that what an earlier run left in the folder is not shown as this one's.
    "tensorboard": ResumeSupport(
        lambda folder: {"purge_step": 0}, lambda writer: str(writer.log_dir), lambda name: {"purge_step": None}
    ),
    "wandb": ResumeSupport(
        lambda folder: {"name": folder.name, "dir": str(folder)},
        lambda run: str(run.id),
        lambda name: {"id": name, "resume": "allow"},
        drops=True,
    ),
    "mlflow": ResumeSupport(
        lambda folder: {"run_name": folder.name},
        lambda run: str(run.info.run_id),
        lambda name: {"run_id": name},
        illegal=r"[^\w\-. :/]",
    ),
}
"""By name. Any other tracker gets a new run whenever the run is resumed, with the rows from its first step on."""


class Tracker:
    """A started tracker; its first failure is a warning, after which nothing more is logged to it.

    Args:
        name: of the tracker in recipes.
        tracker: accelerate's.
        state: what `state` returned of the run that is resumed; None for a new one.
    """

    def __init__(self, name: str, tracker: GeneralTracker, state: Mapping[str, Any] | None = None) -> None:
        self.name, self.tracker, self.is_resumed = name, tracker, state is not None
        self.logged: set[Moment] = {(step, network) for step, network in (state or {}).get("told", ())}
        """Moments that will be repeated, but are logged already."""
        self.failed = False

    def log(self, moment: Moment, numbers: Mapping[str, float]) -> None:
        """Log the numbers of a step."""
        step, illegal = moment[0], self.resume_support.illegal if self.resume_support else None
        named = {re.sub(illegal, "_", name) if illegal else name: value for name, value in numbers.items()}
        self._guarded(f"step {step}", lambda: self.tracker.log(named, step=step))

    def close(self) -> None:
        """End its run."""
        self._guarded("the end", self.tracker.finish)

    @property
    def resume_support(self) -> ResumeSupport | None:
        """How a later process resumes its run; None where that is not known."""
        return RESUME_SUPPORT.get(self.name)

    def state(self) -> dict[str, Any] | None:
        """Return what that process needs, as plain data for JSON, or None."""
        return (
            {"run": self.resume_support.name(self.tracker.tracker), "told": sorted(self.logged)}
            if self.resume_support
            else None
        )

    def _guarded(self, moment: str, act: Callable[[], Any]) -> None:
        if self.failed:
            return
        try:
            act()
        except Exception as error:  # Whatever a service does must not end a run.
            self.failed = True
            logger.warning("%s failed at %s; nothing more is logged to it (%s)", self.name, moment, one_line(error))


def check(name: str) -> None:
    """Refuse a tracker that cannot be used here.

    Raises:
        UnknownName: accelerate knows none of that name.
        RecipeError: it is not installed.
    """
    if name not in LOGGER_TYPE_TO_CLASS:
        raise UnknownName("tracker", name, LOGGER_TYPE_TO_CLASS, where=KEY)
    installed = sorted(str(each) for each in get_available_trackers())
    if name in [each.value for each in LoggerType] and name not in installed:
        raise RecipeError(
            f"{KEY}: {name} is not installed here; choices that are: {', '.join(installed) or 'none'}. Run\n"
            f"  {install_command(name)}"
        )


def start(
    name: str, arguments: Mapping[str, Any], project: str, folder: Path, state: Mapping[str, Any] | None, recipe: str
) -> Tracker | None:
    """Start a tracker on a new or a resumed run; return None, with a warning, where it does not start.

    Args:
        name: of the tracker.
        arguments: of the tracker, from the recipe.
        project: of trackers that have projects, unless the arguments name one.
        folder: of the run.
        state: of the tracker's run to resume; None starts a new one.
        recipe: resolved, as YAML; the configuration of a new run.

    Raises:
        RecipeError: it does not take these arguments.
    """
    kind, given = LOGGER_TYPE_TO_CLASS[name], dict(arguments)
    if name in RESUME_SUPPORT:
        resume_support = RESUME_SUPPORT[name]
        given = resume_support.fresh(folder) | (resume_support.again(state["run"]) if state else {}) | given
    if kind is LOGGER_TYPE_TO_CLASS["tensorboard"]:
        project = name  # The last part of its path, in the run folder.
    else:
        project = next((given.pop(word) for word in PROJECT if word in given), project)
    try:
        tracker = kind(project, *([str(folder)] if kind.requires_logging_directory else []), **given)
        tracker.start()
        if state is None:
            tracker.store_init_configuration(dict(_flat(yaml.safe_load(recipe))))
    except TypeError as error:
        raise RecipeError(f"{KEY}: {name} does not take these arguments: {one_line(error)}") from error
    except Exception as error:
        logger.warning("%s does not start; nothing is logged to it (%s)", name, one_line(error))
        return None
    return Tracker(name, tracker, state)


def one_line(error: Exception) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield plain values by dotted key, lists as JSON, which every tracker takes."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            plain = value is None or isinstance(value, bool | int | float | str)
            yield f"{prefix}{name}", value if plain else json.dumps(value)
