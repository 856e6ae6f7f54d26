"""Files of weights that nothing should be read from, each with what its message says."""

import json
import pickle
import struct
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

SPRUNG = "sprung"


class Trap:
    """Creates a file in the present folder where it is unpickled."""

    def __reduce__(self):
        return (open, (SPRUNG, "w"))


def vit():
    return timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=1).state_dict()


def with_norm(change):
    state = vit()
    return {**state, "norm.weight": change(state["norm.weight"])}


def cyclic():
    mapping = dict(vit())
    mapping["self"] = mapping
    return mapping


def nested():
    mapping = {"weight": torch.ones(1)}
    for _ in range(5000):
        mapping = {"in": mapping}
    return mapping


def changed_header(file, change):
    """Rewrite the header of a .safetensors file, the tensors as they are."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def shared_bytes(header):
    header["norm.bias"]["data_offsets"] = header["norm.weight"]["data_offsets"]


def other_dtype(header):
    header["norm.bias"]["dtype"] = "F64"


def unknown_dtype(header):
    header["norm.bias"]["dtype"] = "F99"


SAVED = {
    "code": (lambda: {"state_dict": vit(), "args": Trap()}, "besides weights"),
    "cyclic": (cyclic, "inside itself"),
    "int8": (lambda: with_norm(lambda w: w.to(torch.int8)), "weights of dtype int8"),
    "bool": (lambda: with_norm(torch.Tensor.bool), "weights of dtype bool"),
    "complex": (lambda: with_norm(lambda w: w.to(torch.complex64)), "weights of dtype complex64"),
    "sparse": (lambda: with_norm(torch.Tensor.to_sparse), "weights of layout sparse_coo"),
    "nan": (lambda: with_norm(lambda w: w * torch.nan), "not finite: norm.weight"),
    "inf": (lambda: with_norm(lambda w: w / 0), "not finite: norm.weight"),
    "nameless": (lambda: [torch.ones(2)], "holds no named weights"),
    "network": (lambda: torch.nn.Linear(2, 2), "Linear besides weights"),
}
BYTES = {
    "empty": (b"", "it is empty"),
    "page": (b"<html>404</html>", "torch.save did not write it"),
    "cut zip": (b"PK\x03\x04 cut short", "cannot be read"),
    "pickle": (pickle.dumps({"a": 1}, 2), "cannot be read"),
}
HEADERS = {"overlap": shared_bytes, "dtype": other_dtype, "unknown dtype": unknown_dtype}


def make(kind, folder):
    """Write the file of this kind; return its path and what a message about it says."""
    folder = Path(folder)
    if kind in SAVED:
        content, said = SAVED[kind]
        torch.save(content(), folder / "bad.pth")
        return folder / "bad.pth", said
    if kind in BYTES:
        content, said = BYTES[kind]
        (folder / "bad.pth").write_bytes(content)
        return folder / "bad.pth", said
    file = folder / "bad.safetensors"
    if kind in HEADERS:
        save_file(vit(), file)
        changed_header(file, HEADERS[kind])
    elif kind == "truncated":
        torch.save(vit(), folder / "bad.pth")
        (folder / "bad.pth").write_bytes((folder / "bad.pth").read_bytes()[:-1000])
        return folder / "bad.pth", "cannot be read"
    elif kind == "truncated safetensors":
        save_file(vit(), file)
        file.write_bytes(file.read_bytes()[:-1000])
    elif kind == "folder":
        (folder / "bad.pth").mkdir()
        return folder / "bad.pth", "holds neither a run nor a backbone"
    elif kind == "jax":
        (folder / "byol.pkl").write_bytes(pickle.dumps(Trap()))
        return folder / "byol.pkl", "a pickle of another framework"
    return file, "cannot be read"


KINDS = [*SAVED, *BYTES, *HEADERS, "truncated", "truncated safetensors", "folder", "jax"]
