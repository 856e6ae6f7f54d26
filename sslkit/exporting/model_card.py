"""Model card of an exported backbone, the README.md that the Hugging Face Hub shows."""

import json
from collections.abc import Mapping
from typing import Any

from sslkit.exporting.provenance import read, training
from sslkit.exporting.source import Source

NO_LICENSE = "# license: not specified yet; identifiers: https://huggingface.co/docs/hub/repositories-licenses"


def model_card(source: Source) -> str:
    """Return the card as Markdown: use, preprocessing of images, results and training.

    Sections whose files the folder lacks are left out; a backbone without a run has neither recipe nor results.

    Raises:
        SSLKitError: a file of the folder cannot be read.
    """
    sections = [_front(source), _opening(source), _use(source), _images(source), *_results(source)]
    return "\n\n".join([*sections, *training(source.folder)]) + "\n"


def _front(source: Source) -> str:
    license = f"license: {source.license}" if source.license else NO_LICENSE
    tags = "\n".join(f"- {tag}" for tag in ("timm", "sslkit", "self-supervised-learning"))
    return f"---\nlibrary_name: timm\npipeline_tag: image-feature-extraction\n{license}\ntags:\n{tags}\n---"


def _opening(source: Source) -> str:
    title = (source.repository or source.name).rpartition("/")[2]
    place = f"the file {source.folder.name}" if source.folder.is_file() else "a run of sslkit"
    return (
        f"# {title}\n\nA backbone without classifier, trained without labels: the {source.network} of {place}. "
        f"{source.backbone.embed_dim} features an image."
    )


def _use(source: Source) -> str:
    size = source.preprocessing.size
    return f"""\
## Use

```python
import timm, torch

model = timm.create_model("hf-hub:{source.repository or "OWNER/NAME"}", pretrained=True, num_classes=0).eval()
mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
with torch.no_grad():
    features = model((images - mean) / std)  # images: (N, {source.preprocessing.channels}, {size}, {size}) in 0..1
```"""


def _images(source: Source) -> str:
    preprocessing = source.preprocessing
    low, high = preprocessing.value_range or ("0", "the largest of the dtype (255 of uint8, 1 of floating images)")
    rows = {
        "channels": preprocessing.channels,
        "pixel values that are 0 and 1": f"{low} and {high}",
        "mean, of values in 0..1": ", ".join(map(str, preprocessing.mean)),
        "standard deviation": ", ".join(map(str, preprocessing.std)),
        "size": f"shorter side to {preprocessing.resize} px (bicubic, antialiased), then the central "
        f"{preprocessing.size} px",
    }
    if getattr(source.backbone, "positions", "timm") != "timm":
        rows["positions"] = (
            f"stored for {preprocessing.size} px; for other sizes timm resamples them by its own rule, the run by that "
            "of DINO's code, so that features differ"
        )
    return "## Images\n\n" + "\n".join(f"- {name}: {value}" for name, value in rows.items())


def _results(source: Source) -> list[str]:
    """Return a table for each evaluator, data set and protocol, with the last results of each network."""
    groups: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
    for row in read(source.folder / "results.json", json.loads) or ():
        key = (row["evaluator"], row["dataset"], row["protocol"])
        # Rows are in order of time, so the last one of a network stays.
        groups.setdefault(key, {})[row["network"]] = row
    return ["## Results", *(_table(source.network, key, last) for key, last in groups.items())] if groups else []


def _table(network: str, key: tuple[str, ...], last: Mapping[str, Mapping[str, Any]]) -> str:
    evaluator, dataset, protocol = key
    columns = sorted(last, key=lambda name: name != network)
    metrics = dict.fromkeys(metric for row in last.values() for metric in row["metrics"])
    lines = [["", *columns], ["---"] * (1 + len(columns))]
    lines += [[metric, *(_figure(last[name]["metrics"].get(metric)) for name in columns)] for metric in metrics]
    step = last.get(network, {}).get("step")
    when = "" if step is None else f", after {step} steps"
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{evaluator} on {dataset}, in percent{when} ({protocol}):\n\n{table}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
