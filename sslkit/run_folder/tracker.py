"""One of accelerate's trackers, and what accelerate does not know of it."""

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

from sslkit.errors import RecipeError, UnknownName

logger = logging.getLogger("sslkit.training")

KEY = "runtime.trackers"
IN_EXTRA = ("tensorboard", "wandb", "mlflow")
PROJECT = ("project", "project_name", "experiment_name")
"""What trackers call the argument that accelerate hands on by position."""

Moment = tuple[int, str]
"""A step, and the network that was measured; empty for a row of metrics.jsonl."""


@dataclass(frozen=True)
class ResumeSupport:
    """How a tracker names a run, and goes on with it.

    Args:
        fresh: arguments of a new run, given our run's folder.
        name: of the run, given what accelerate's tracker wraps.
        again: other arguments to go on with the run of that name.
        illegal: characters that a metric's name may not have, as a regular expression.
        drops: whether it drops by itself what it is told of a step twice. Such a one may be told again what it lost.
    """

    fresh: Callable[[Path], dict[str, Any]]
    name: Callable[[Any], str]
    again: Callable[[str], dict[str, Any]]
    illegal: str | None = None
    drops: bool = False


WAYS = {
    # Whatever lies in its folder is hidden from a new run.
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
"""Any other tracker has a new run whenever the run is resumed, and is told it from its first step."""


class Tracker:
    """One that has been started; it ends with its first failure, which costs a warning.

    Args:
        name: as a recipe says it.
        tracker: accelerate's.
        state: what `state` returned of the run that it goes on with; None for a new one.
    """

    def __init__(self, name: str, tracker: GeneralTracker, state: Mapping[str, Any] | None = None) -> None:
        self.name, self.tracker, self.goes_on = name, tracker, state is not None
        self.told: set[Moment] = {(step, network) for step, network in (state or {}).get("told", ())}
        """Moments that will be done again, and need not be told again."""
        self.failed = False

    def tell(self, moment: Moment, numbers: Mapping[str, float]) -> None:
        """Tell it numbers of a step."""
        step, illegal = moment[0], self.resume_support.illegal if self.resume_support else None
        named = {re.sub(illegal, "_", name) if illegal else name: value for name, value in numbers.items()}
        self._guarded(f"step {step}", lambda: self.tracker.log(named, step=step))

    def close(self) -> None:
        """End its run."""
        self._guarded("the end", self.tracker.finish)

    @property
    def resume_support(self) -> ResumeSupport | None:
        """How a later process goes on with its run; None where that is not known."""
        return WAYS.get(self.name)

    def state(self) -> dict[str, Any] | None:
        """Return what that process needs, as JSON takes it, or None."""
        return (
            {"run": self.resume_support.name(self.tracker.tracker), "told": sorted(self.told)}
            if self.resume_support
            else None
        )

    def _guarded(self, moment: str, act: Callable[[], Any]) -> None:
        if self.failed:
            return
        try:
            act()
        except Exception as error:
            self.failed = True
            logger.warning("%s failed at %s and is told nothing more (%s)", self.name, moment, said(error))


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
        package = "'sslkit[trackers]'" if name in IN_EXTRA else name
        raise RecipeError(
            f"{KEY}: {name} is not installed here; choices that are: {', '.join(installed) or 'none'}. Run\n"
            f"  pip install {package}"
        )


def start(
    name: str, arguments: Mapping[str, Any], project: str, folder: Path, state: Mapping[str, Any] | None, recipe: str
) -> Tracker | None:
    """Start a tracker, or go on with a run of it; return None, with a warning, where it does not start.

    Args:
        name: of the tracker.
        arguments: for it, as a recipe gives them.
        project: what trackers with projects call theirs, unless the arguments say otherwise.
        folder: of our run.
        state: of the run that it goes on with; None starts a new one.
        recipe: resolved, as YAML; the configuration of a new run.

    Raises:
        RecipeError: it does not take these arguments.
    """
    kind, given = LOGGER_TYPE_TO_CLASS[name], dict(arguments)
    if name in WAYS:
        resume_support = WAYS[name]
        given = resume_support.fresh(folder) | (resume_support.again(state["run"]) if state else {}) | given
    if kind is LOGGER_TYPE_TO_CLASS["tensorboard"]:
        project = name  # The last part of its path; the folder already says whose run it is.
    else:
        project = next((given.pop(word) for word in PROJECT if word in given), project)
    try:
        tracker = kind(project, *([str(folder)] if kind.requires_logging_directory else []), **given)
        tracker.start()
        if state is None:
            tracker.store_init_configuration(dict(_flat(yaml.safe_load(recipe))))
    except TypeError as error:
        raise RecipeError(f"{KEY}: {name} does not take these arguments: {said(error)}") from error
    except Exception as error:
        logger.warning("%s does not start and is told nothing (%s)", name, said(error))
        return None
    return Tracker(name, tracker, state)


def said(error: Exception) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield plain values by dotted key, lists as JSON: more than that not all trackers take."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            plain = value is None or isinstance(value, bool | int | float | str)
            yield f"{prefix}{name}", value if plain else json.dumps(value)
