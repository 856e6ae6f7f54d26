"""Hook specifications of plugins (pluggy): one hook for each kind of component.

A plugin is a module with functions marked ``@sslkit.hookimpl`` and an entry point in the group ``sslkit``. A hook
takes no argument, is called once when plugins are loaded, may be implemented by any plugin, and returns the classes
that the plugin offers, each as ``"package.module:Class"`` so that listing imports nothing (the class itself is
accepted). The class name is the name in recipes. An offered class has no effect until a recipe names it.
"""

from collections.abc import Iterable
from typing import NamedTuple

import pluggy

GROUP = "sslkit"
"""The entry-point group, and pluggy's project name."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

Offers = Iterable[str | type]


class Kind(NamedTuple):
    """A kind of component.

    Args:
        hook: name of its hook.
        contract: ``package.module:Class`` of the abstract class that its classes extend.
        singular: name of one such component in messages.
    """

    hook: str
    contract: str
    singular: str

    @property
    def command(self) -> str:
        """The name of the kind on the command line, in kebab case."""
        return self.hook.replace("_", "-")


KINDS = (
    Kind("backbones", "sslkit.contracts:Backbone", "backbone"),
    Kind("heads", "sslkit.contracts:Head", "head"),
    Kind("predictors", "sslkit.contracts:Predictor", "predictor"),
    Kind("view_makers", "sslkit.contracts:ViewMaker", "view maker"),
    Kind("teacher_updates", "sslkit.contracts:TeacherUpdate", "teacher update"),
    Kind("collapse_operators", "sslkit.contracts:CollapseOperator", "collapse operator"),
    Kind("losses", "sslkit.contracts:Loss", "loss"),
    Kind("optimizers", "sslkit.contracts:Optimizer", "optimizer"),
    Kind("schedules", "sslkit.schedules:Schedule", "schedule"),
    Kind("image_sources", "sslkit.contracts:ImageSource", "image source"),
    Kind("evaluators", "sslkit.contracts:Evaluator", "evaluator"),
    Kind("callbacks", "sslkit.contracts:Callback", "callback"),
)


@hookspec
def backbones() -> Offers:
    """Offer networks from images to features: subclasses of ``Backbone``, for ``method.backbone``."""
    return ()


@hookspec
def heads() -> Offers:
    """Offer projectors with or without prototypes: subclasses of ``Head``, for ``method.head``."""
    return ()


@hookspec
def predictors() -> Offers:
    """Offer networks of the student alone: subclasses of ``Predictor``, for ``method.predictor``."""
    return ()


@hookspec
def view_makers() -> Offers:
    """Offer makers of the views of an image: subclasses of ``ViewMaker``, for ``views``."""
    return ()


@hookspec
def teacher_updates() -> Offers:
    """Offer rules by which the teacher follows: subclasses of ``TeacherUpdate``, for ``method.teacher``."""
    return ()


@hookspec
def collapse_operators() -> Offers:
    """Offer operators from teacher outputs to targets: subclasses of ``CollapseOperator``, for ``method.collapse``."""
    return ()


@hookspec
def losses() -> Offers:
    """Offer losses between student outputs and targets: subclasses of ``Loss``, for ``method.loss``."""
    return ()


@hookspec
def optimizers() -> Offers:
    """Offer optimizers: subclasses of ``Optimizer``, for ``optimization.optimizer``."""
    return ()


@hookspec
def schedules() -> Offers:
    """Offer schedules: subclasses of ``Schedule``, for every argument typed ``float | Schedule``."""
    return ()


@hookspec
def image_sources() -> Offers:
    """Offer data sets of images: subclasses of ``ImageSource``, for ``data.train`` and ``data.test``."""
    return ()


@hookspec
def evaluators() -> Offers:
    """Offer evaluations of a frozen backbone: ``Evaluator``, for ``evaluation.evaluators`` and ``sslkit evaluate``."""
    return ()


@hookspec
def callbacks() -> Offers:
    """Offer callbacks: subclasses of ``Callback``, for ``runtime.callbacks``."""
    return ()
