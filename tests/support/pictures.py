"""Pictures as files and as tables, for the tests of image sources."""

import io
from pathlib import Path

import datasets
from PIL import Image

from sslkit.data import HuggingFaceImages


def picture(value: int, mode: str = "RGB", size: tuple[int, int] = (6, 5)) -> Image.Image:
    return Image.new("L", size, value).convert(mode)


def png(value: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    picture(value, mode).save(buffer, "PNG")
    return buffer.getvalue()


def fill(root: Path, *names: str) -> Path:
    """Write pictures whose grey value is their number."""
    for value, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(value).save(root / name)
    return root


def values(source: HuggingFaceImages) -> list[int]:
    return [int(source.read(i).image[0, 0, 0]) for i in range(len(source))]


def table(start: int, size: int, **columns) -> datasets.Dataset:
    rows = {"image": [{"bytes": png(start + i), "path": None} for i in range(size)]}
    features = datasets.Features({"image": datasets.Image()})
    return datasets.Dataset.from_dict(rows | columns, features=features if not columns else None)


def labelled(start: int, size: int) -> datasets.Dataset:
    features = {"image": datasets.Image(), "digit": datasets.ClassLabel(names=["even", "odd"])}
    rows = {"image": [{"bytes": png(start + i), "path": None} for i in range(size)], "digit": [0, 1] * (size // 2)}
    rows["digit"] += [0] * (size - len(rows["digit"]))
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def parquet(folder: Path, **sizes: int) -> Path:
    folder.mkdir(parents=True)
    for start, (split, size) in enumerate(sizes.items()):
        labelled(100 * start, size).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder
