"""``sslkit export``: hand a run's backbone to others."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sslkit.cli.arguments import take_option
from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError, UnknownName

if TYPE_CHECKING:
    from sslkit.exporting.export import Exported

TARGETS = {
    "timm": 'a folder for timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=0)',
    "hf": "that folder with a model card, for the Hugging Face Hub",
    "onnx": "model.onnx: opset 20, any batch size, the image size of the run; takes pip install 'sslkit[onnx]'",
}

OPTIONS = {
    "--to": f"{', '.join(TARGETS)} (timm)",
    "--network": "teacher or student of a run (teacher)",
    "--out": "FOLDER, new or empty; RUN-NETWORK-TARGET beside the run without it",
}

HUB_OPTIONS = {
    "--push": "OWNER/NAME on the Hub, where the folder is uploaded too; log in first: hf auth login",
    "--license": "of the weights, for the model card: apache-2.0, cc-by-4.0, ...; open without it",
}

PRIVATE = "--private"

EXAMPLES = """\
sslkit export RUN_FOLDER
sslkit export RUN_FOLDER --to onnx --network student --out ~/models/student
sslkit export RUN_FOLDER --to hf --license apache-2.0 --push my-name/my-model"""

USES = {
    "timm": 'timm.create_model("local-dir:{folder}", pretrained=True, num_classes=0)',
    "hf": "hf upload OWNER/NAME {folder}    # after a look at its README.md",
    "onnx": 'onnxruntime.InferenceSession("{folder}/model.onnx").run(["features"], {{"images": images}})',
}


def run(argv: Sequence[str]) -> int:
    """Export a backbone, or say what that takes."""
    if any(word in ("-h", "--help") for word in argv):
        _help()
        return 0
    words = list(argv)
    names = [*OPTIONS, *HUB_OPTIONS]
    options = {name: values[-1] for name in names if (values := take_option(words, name))}
    private = PRIVATE in words
    places = [word for word in words if word != PRIVATE]
    _check(places, options, private)
    from sslkit.exporting.export import export
    from sslkit.exporting.hub_folder import check_repository, push

    target, repository = options.get("--to", "timm"), options.get("--push")
    if repository is not None:
        check_repository(repository)
    done = export(
        places[0],
        target,
        options.get("--network", "teacher"),
        options.get("--out"),
        license=options.get("--license"),
        repository=repository,
    )
    _show(done, target, pushed=repository is not None)
    if repository is not None:
        print(f"Pushed to: {push(done.folder, repository, private)}")
    return 0


def _check(places: Sequence[str], options: dict[str, str], private: bool) -> None:
    for word in places:
        if word.startswith("-"):
            raise UnknownName("option", word.partition("=")[0], [*OPTIONS, *HUB_OPTIONS, PRIVATE])
    if len(places) != 1:
        raise SSLKitError(f"sslkit export takes one RUN, a run folder, not {' and '.join(places) or 'nothing'}")
    given = [name for name in HUB_OPTIONS if name in options] + [PRIVATE] * private
    if given and options.get("--to") != "hf":
        raise SSLKitError(f"{given[0]} is for the Hugging Face Hub: add --to hf")
    if private and "--push" not in options:
        raise SSLKitError(f"{PRIVATE} is for a new repository: add --push OWNER/NAME")


def _show(done: "Exported", target: str, pushed: bool) -> None:
    from sslkit.exporting.agreement import TOLERANCE

    screen = Screen()
    screen.heading("Exported", f"{done.network} · {target}")
    files = sorted(done.folder.iterdir())
    screen.columns([*((file.name, _size(file)) for file in files)])
    screen.text(
        f"Loaded back and compared on noise and drawn textures: features differ by at most {done.difference:.1e} of "
        f"their length ({TOLERANCE:.0e} is allowed)."
    )
    print(f"Folder: {done.folder}")
    if not pushed:
        print(f"Use:    {USES[target].format(folder=done.folder)}")


def _size(file: Path) -> str:
    size = file.stat().st_size
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"


def _help() -> None:
    private = (PRIVATE, "a repository that --push makes is seen by its owner alone")
    Screen().help(
        "sslkit export RUN",
        "a run's backbone for other programs; RUN is a run folder, or holds a backbone",
        ("Targets", "", TARGETS.items()),
        ("Options", "", OPTIONS.items()),
        ("With --to hf", "", [*HUB_OPTIONS.items(), private]),
        examples=EXAMPLES,
    )
