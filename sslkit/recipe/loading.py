"""Load a recipe by name or file, check it, and build it."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from sslkit import plugins
from sslkit.contracts import Backbone, Head
from sslkit.data.classes import labels_as_in_training
from sslkit.errors import RecipeError, SSLKitError
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
from sslkit.recipe.validation import check_channels, check_sizes, validate
from sslkit.registry import Registry

IDENTITY = ("method", "views", "data", "optimization", "precision", "seed")
"""The sections that decide what a run learns."""


@dataclass(frozen=True)
class Recipe:
    """A recipe, checked and ready to build.

    Args:
        name: what the run is called.
        layers: what was written where, the lowest first.
        values: the layers merged, as plain data.
        root: the same against the signatures of its classes.
        registry: where its components come from.
        open_test: whether building may choose the test split, as `Builder` does.
    """

    name: str
    layers: tuple[Layer, ...]
    values: dict[str, Any]
    root: ComponentSpec
    registry: Registry
    open_test: bool = False

    @property
    def resolved(self) -> dict[str, Any]:
        """The recipe as plain data with every default filled in; what a link gives is left to the link.

        Images and first weights on this machine are named by their absolute path, so that the recipe can be used from
        any folder.
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
        """Write the resolved recipe; training it repeats the run."""
        return yaml.safe_dump(self.resolved, sort_keys=False, default_flow_style=None, width=100)

    def identity(self, fingerprints: Sequence[str] = ()) -> str:
        """Return 16 hex digits that are equal for runs that learn the same.

        First weights count by their own fingerprint, where the recipe says it, not by where they lie.

        Args:
            fingerprints: of the index of each image source, in place of where the images lie.
        """
        return _identity(self.resolved, fingerprints)

    def identity_in(self, run: Path, fingerprints: Sequence[str] = ()) -> str:
        """Return the identity by which a run folder knows this recipe.

        A class that gains an argument changes the identity of every recipe that names it. A run that began before says
        nothing of that argument in its recipe.yaml; where that recipe is this one today, every default filled in, its
        identity is still that of the file as it was written.

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
        """Return where a key was written, the lowest layer first: files, the command line; none for a default."""
        return origins_of(key, self.layers)

    def build(self, builder: Builder | None = None) -> BuiltRecipe:
        """Build every component; initial weights are drawn from the recipe's seed.

        Afterwards the recipe also says which test images were found, where it left that open.

        Args:
            builder: what makes them, for who wants single parts afterwards.

        Raises:
            SSLKitError: parts that do not fit together, or images that are not there.
        """
        builder = builder or self.builder()
        with seeded(int(self.root.at("seed"))):
            # Networks first, by themselves: their weights depend on the seed and not on what else is built.
            for network in ("backbone", "head", "predictor"):
                builder.build(f"method.{network}")
            check_sizes(builder.build("views"), builder.build("method.backbone"), self.root.at("views"))
            build = builder.build
            validate(build("method"), build("views"), build("optimization"), build("runtime"))
            built: BuiltRecipe = builder.build("")
        for key, source in (("data.train", built.data.train), ("data.test", built.data.test)):
            if source is not None:
                check_channels(source, key, built.data.channels)
        if built.data.test is not None:
            labels_as_in_training(built.data.train, built.data.test)
        return built

    def build_networks(self, seed: int) -> tuple[Backbone, Head]:
        """Build another backbone and head, with initial weights drawn from ``seed``."""
        builder = self.builder()
        with seeded(seed):
            return builder.build("method.backbone"), builder.build("method.head")

    def builder(self) -> Builder:
        """Return a new builder of this recipe's components."""
        return Builder(self.root, self.registry, self.open_test)


def load(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        name: a built-in recipe's name, or a YAML file.
        overrides: ``--section.key value`` or ``--section.key=value``, as on the command line.

    Raises:
        SSLKitError: what cannot be run; the message names the key, the likely intention and the choices.
    """
    return from_layers([*read_layers(name), *read_overrides(overrides)], Path(name).stem)


def from_layers(layers: Sequence[Layer], name: str) -> Recipe:
    """Check merged layers and return the recipe.

    Args:
        layers: the lowest first.
        name: what the recipe is called unless it says so itself.

    Raises:
        SSLKitError: as `load`.
    """
    registry = plugins.active().registry
    values = merge_layers(layers)
    title = str(values.pop("name", name))
    try:
        root = fill(BuiltRecipe, values, "", registry)
    except InvalidValue as error:
        written = origins_of(error.key, layers)[-1:]
        place = "" if written in ([], [COMMAND_LINE]) else f" ({written[0]})"
        raise RecipeError(f"{error}{place}") from None
    _check_sections(root)
    return Recipe(title, tuple(layers), values, root, registry, leaves_test_split_open(layers, values))


def load_data(name: str | Path) -> Data:
    """Build the images of a recipe alone; components of its other sections need not exist.

    Raises:
        SSLKitError: the section cannot be read, or the images are not there.
    """
    registry = plugins.active().registry
    given = merge_layers(read_layers(name)).get("data", {})
    root = ComponentSpec(BuiltRecipe, given={"data": fill(Data, given, "data", registry)})
    data: Data = Builder(root, registry).build("data")
    return data


def _identity(recipe: Mapping[str, Any], fingerprints: Sequence[str]) -> str:
    """Return the hash of a resolved recipe, as `Recipe.identity` describes it."""
    values = {section: recipe[section] for section in IDENTITY if section in recipe}
    sources = {"train": None, "test": None, "fingerprints": list(fingerprints)} if fingerprints else {}
    # Where the images lie does not matter; their fingerprints do.
    values["data"] = {**values["data"], **sources, "num_images": None}
    values["method"] = {key: value for key, value in recipe["method"].items() if key != "init_from"}
    if first := recipe["method"].get("init_from"):
        values["init_from"] = first["fingerprint"] or first
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _absolute(place: str) -> str:
    """Return a path on this machine from the root, and anything else as it is."""
    path = Path(place).expanduser()
    return str(path.absolute()) if path.exists() else place


def _check_sections(root: ComponentSpec) -> None:
    """Let every section judge its own numbers now, before the parts exist."""
    for section in (*root.given.values(), root):
        if isinstance(section, ComponentSpec) and not section.name:
            section.cls(**{name: _without_parts(section.at(name)) for name in parameters(section.cls)})


def _without_parts(value: Any) -> Any:
    return None if isinstance(value, ComponentSpec) or value is REQUIRED else value


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator inside the block, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
