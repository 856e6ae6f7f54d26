"""Loading of recipes by name or file, and construction of their components."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from sslkit import plugins
from sslkit.contracts import Backbone, Head
from sslkit.data.classes import check_classes
from sslkit.errors import RecipeError, SSLKitError, shown
from sslkit.paths import local_path
from sslkit.recipe.build import Builder
from sslkit.recipe.files import Layer, read_layers
from sslkit.recipe.layers import (
    COMMAND_LINE,
    as_component,
    leaves_test_split_open,
    merge_layers,
    origins_of,
    read_overrides,
)
from sslkit.recipe.sections import BuiltRecipe, Data
from sslkit.recipe.serialize import complete
from sslkit.recipe.signature import REQUIRED, parameters
from sslkit.recipe.specification import ComponentSpec, InvalidValue, fill
from sslkit.recipe.validation import check_channels, check_parts_fit, check_sizes
from sslkit.registry import Registry

IDENTITY = ("method", "views", "data", "optimization", "precision", "seed")
"""The sections that determine what a run learns, hashed as its identity."""


@dataclass(frozen=True)
class Recipe:
    """A recipe, checked and ready to build.

    Args:
        name: of its runs.
        layers: files and overrides, the lowest first.
        values: the merged layers, as plain data.
        root: the same, checked against the signatures of its classes.
        registry: the components that it may name.
        open_test: whether `Builder` may choose the test split.
    """

    name: str
    layers: tuple[Layer, ...]
    values: dict[str, Any]
    root: ComponentSpec
    registry: Registry
    open_test: bool = False

    @property
    def resolved(self) -> dict[str, Any]:
        """The recipe as plain data with every default, but without the values that links give.

        Paths of local images and initial weights are absolute, so that the recipe can be used from any folder.
        """
        values = {"name": self.name, **complete(self.root, self.registry)}
        for part in ("train", "test"):
            source = as_component(values["data"][part])
            path = source.arguments.get("path") if source else None
            if source and isinstance(path, str):
                values["data"][part] = {source.name: {**source.arguments, "path": _absolute(path)}}
        if first := values["method"]["init_from"]:
            first["weights"] = _absolute(first["weights"])
        return values

    def to_yaml(self) -> str:
        """Return the resolved recipe as YAML; training it repeats the run."""
        return yaml.safe_dump(self.resolved, sort_keys=False, default_flow_style=None, width=100)

    def identity(self, fingerprints: Sequence[str] = ()) -> str:
        """Return a hash, 16 hex digits, that is equal for runs that learn the same.

        Initial weights are hashed by their fingerprint, if the recipe has one, otherwise by their path.

        Args:
            fingerprints: of the index of each image source, hashed instead of their paths.
        """
        return _identity(self.resolved, fingerprints)

    def identity_in(self, run: Path, fingerprints: Sequence[str] = ()) -> str:
        """Return the identity of this recipe in a run folder, whose checkpoints may be older than today's defaults.

        A new argument of a class changes the identity of every recipe that names the class. The recipe.yaml of an older
        run lacks that argument. If it equals this recipe once today's defaults are added, the identity is that of
        recipe.yaml without them.

        Args:
            run: a run folder, with or without a recipe.
            fingerprints: as for `identity`.
        """
        today, written = self.identity(fingerprints), run / "recipe.yaml"
        if not written.is_file():
            return today
        try:
            begun = load(written)
        except SSLKitError:
            return today
        return _identity(begun.values, fingerprints) if begun.identity(fingerprints) == today else today

    def origins(self, key: str) -> list[str]:
        """Return the origins of a key, files or the command line, the lowest layer first; none for a default."""
        return origins_of(key, self.layers)

    def build(self, builder: Builder | None = None) -> BuiltRecipe:
        """Build every component, with initial weights drawn from the seed of the recipe.

        If the recipe leaves the test split open, the split that is found is written into it.

        Args:
            builder: builds the components, and afterwards returns the same ones by key; None for a new one.

        Raises:
            SSLKitError: components do not fit together, or images are missing.
        """
        builder = builder or self.builder()
        with seeded(int(self.root.at("seed"))):
            # Networks first, so that their weights depend on the seed and not on other components that draw numbers.
            for network in ("backbone", "head", "predictor"):
                builder.build(f"method.{network}")
            # Before the images are read: the index of a large folder takes long.
            check_sizes(builder)
            check_parts_fit(builder)
            built: BuiltRecipe = builder.build("")
        for key, source in (("data.train", built.data.train), ("data.test", built.data.test)):
            if source is not None:
                check_channels(source, key, built.data.channels)
        if built.data.test is not None:
            check_classes(built.data.train, built.data.test)
        return built

    def build_networks(self, seed: int) -> tuple[Backbone, Head]:
        """Return a new backbone and head with initial weights drawn from ``seed``."""
        builder = self.builder()
        with seeded(seed):
            return builder.build("method.backbone"), builder.build("method.head")

    def builder(self) -> Builder:
        """Return a new builder of this recipe's components."""
        return Builder(self.root, self.registry, self.open_test)


def load(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load and check a recipe.

    Args:
        name: of a built-in recipe, or a YAML file.
        overrides: ``--section.key value`` or ``--section.key=value``, as on the command line.

    Raises:
        SSLKitError: the recipe is invalid; the message names the key, the likely intention and the choices.
    """
    return from_layers([*read_layers(name), *read_overrides(overrides)], Path(name).stem)


def from_layers(layers: Sequence[Layer], name: str) -> Recipe:
    """Return the recipe of merged layers, checked.

    Args:
        layers: the lowest first.
        name: of the recipe if the layers have none.

    Raises:
        SSLKitError: as `load`.
    """
    registry = plugins.active().registry
    values = merge_layers(layers)
    title = _checked_name(values.pop("name", name))
    try:
        root = fill(BuiltRecipe, values, "", registry)
    except InvalidValue as error:
        written = origins_of(error.key, layers)[-1:]
        place = "" if written in ([], [COMMAND_LINE]) else f" ({written[0]})"
        raise RecipeError(f"{error}{place}") from None
    _check_sections(root)
    return Recipe(title, tuple(layers), values, root, registry, leaves_test_split_open(layers, values))


def load_data(name: str | Path) -> Data:
    """Build the section ``data`` of a recipe; components of other sections need not be installed.

    Args:
        name: of a built-in recipe, or a YAML file.

    Raises:
        SSLKitError: the section is invalid, or images are missing.
    """
    registry = plugins.active().registry
    given = merge_layers(read_layers(name)).get("data", {})
    root = ComponentSpec(BuiltRecipe, given={"data": fill(Data, given, "data", registry)})
    data: Data = Builder(root, registry).build("data")
    return data


def _identity(recipe: Mapping[str, Any], fingerprints: Sequence[str]) -> str:
    """Return the hash of a recipe as plain data, as `Recipe.identity` describes it."""
    values = {section: recipe[section] for section in IDENTITY if section in recipe}
    sources = {"train": None, "test": None, "fingerprints": list(fingerprints)} if fingerprints else {}
    # Copies of the same images elsewhere are the same images: their fingerprints are hashed instead of their paths.
    values["data"] = {**values["data"], **sources, "num_images": None}
    values["method"] = {key: value for key, value in recipe["method"].items() if key != "init_from"}
    if first := recipe["method"].get("init_from"):
        values["init_from"] = first["fingerprint"] or first
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _checked_name(name: Any) -> str:
    """Return the name of a recipe, which names a folder below runs/.

    Raises:
        RecipeError: it is not the name of one folder.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[^\W_][\w. ()+=,@-]{0,99}", name):
        raise RecipeError(
            f"name is that of the recipe's runs, at most 100 letters, digits and any of . _ - + = @ , ( ), not "
            f"{shown(name)}; --run-dir chooses a folder"
        )
    return name


def _absolute(place: str) -> str:
    """Return the absolute path of an existing file or folder; any other text unchanged."""
    path = local_path(place)
    return str(path.absolute()) if path.exists() else place


def _check_sections(root: ComponentSpec) -> None:
    """Check the values of every section by its ``__post_init__``, before components are built.

    Raises:
        RecipeError: a value is out of range.
    """
    for section in (*root.given.values(), root):
        if isinstance(section, ComponentSpec) and not section.name:
            section.cls(**{name: _without_components(section.at(name)) for name in parameters(section.cls)})


def _without_components(value: Any) -> Any:
    return None if isinstance(value, ComponentSpec) or value is REQUIRED else value


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block, and restore the state of its CPU generator afterwards."""
    # Of the CPU only: networks are built there and then moved, so that initial weights are equal on every device.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
