"""``sslkit export``: convert a run's backbone for timm, the Hugging Face Hub, ONNX or DINO's own code."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sslkit.cli.parser import CommandParser
from sslkit.cli.results import BACKBONE_HELP, NETWORK_HELP, NETWORKS
from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError
from sslkit.progress import loading, working

if TYPE_CHECKING:
    from sslkit.exporting.export import Exported

TARGETS = {
    "timm": 'a folder for timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=0)',
    "hf": "that folder with a model card, for the Hugging Face Hub",
    "onnx": "model.onnx: opset 20, any batch size, the image size of the run; needs onnx, onnxscript, onnxruntime",
    "dino": "checkpoint.pth as DINO's own code (facebookresearch/dino) writes it: teacher, student, heads, center",
}

EXAMPLES = """\
sslkit export RUN_FOLDER
sslkit export RUN_FOLDER --to onnx --network student --out ~/models/student
sslkit export RUN_FOLDER --to hf --license apache-2.0 --push my-name/my-model"""

USES = {
    "timm": 'timm.create_model("local-dir:{folder}", pretrained=True, num_classes=0)',
    "hf": "hf upload OWNER/NAME {folder}    # after a look at its README.md",
    "onnx": 'onnxruntime.InferenceSession("{folder}/model.onnx").run(["features"], {{"images": images}})',
    "dino": "python eval_knn.py --pretrained_weights {folder}/checkpoint.pth    # and its --arch, --patch_size",
}


def add_arguments(parser: CommandParser) -> None:
    """Declare what the command takes."""
    purpose = "a run's backbone for other programs; RUN is a run folder, or holds a backbone"
    parser.describe("one RUN, a run folder", purpose, EXAMPLES)
    parser.add_argument("run", metavar="RUN", help="a run folder, one that holds a backbone, or a FILE of weights")
    parser.add_table("Targets", "", lambda: TARGETS.items())
    options = parser.add_options()
    options.add_argument(
        "--to",
        metavar="TARGET",
        dest="target",
        choices=tuple(TARGETS),
        default="timm",
        help=f"{', '.join(TARGETS)} (timm)",
    )
    options.add_argument("--network", metavar="NAME", choices=NETWORKS, help=NETWORK_HELP)
    options.add_argument("--backbone", metavar="NAME", help=BACKBONE_HELP)
    options.add_argument("--out", metavar="FOLDER", help="new or empty; RUN-NETWORK-TARGET beside the run without it")
    hub = parser.add_options("With --to hf")
    hub.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="repository on the Hub, where the folder is uploaded too; log in first: hf auth login",
    )
    hub.add_argument(
        "--license",
        metavar="NAME",
        help="of the weights, for the model card: apache-2.0, cc-by-4.0, ...",
    )
    hub.add_argument("--private", action="store_true", help="a repository that --push makes is seen by its owner alone")


def run(args: Namespace) -> int:
    """Export a backbone."""
    _check_hub_options(args)
    with loading():
        from sslkit.exporting.export import export
        from sslkit.exporting.hub_folder import check_repository, push

    if args.push is not None:
        check_repository(args.push)
    hub = {"license": args.license, "repository": args.push}
    done = export(args.run, args.target, args.network, args.out, architecture=args.backbone, **hub)
    _show(done, args.target, pushed=args.push is not None)
    if args.push is not None:
        with working(f"uploading to {args.push}"):
            address = push(done.folder, args.push, args.private)
        print(f"Pushed to: {address}")
    return 0


def _check_hub_options(args: Namespace) -> None:
    given = [name for name in ("push", "license", "private") if getattr(args, name) not in (None, False)]
    if given and args.target != "hf":
        raise SSLKitError(f"--{given[0]} is for the Hugging Face Hub: add --to hf")
    if args.private and args.push is None:
        raise SSLKitError("--private is for a new repository: add --push OWNER/NAME")


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
