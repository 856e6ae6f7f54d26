"""Wrap any timm model as a backbone."""

import copy
import json
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load_file
from timm.layers import PatchEmbed
from timm.models import save_for_hf
from torch import Tensor, nn

from sslkit.backbones.matching import check_dtypes
from sslkit.backbones.preprocessing import default_preprocessing
from sslkit.backbones.published_code import published_arguments
from sslkit.backbones.resampling import resample, square_grid
from sslkit.backbones.scaled_positions import use_scaled_positions
from sslkit.backbones.timm_models import (
    ARCHITECTURE,
    FOREIGN,
    check_model_args,
    create_timm_model,
    images_for_timm,
    leave_out_num_classes,
    set_fused_attention,
    use_small_image_stem,
)
from sslkit.contracts import Backbone
from sslkit.errors import NotSupported, RecipeError, UnknownName
from sslkit.types import Features, Preprocessing

Positions = Literal["timm", "dino"]
"""Rules by which position embeddings are resampled."""


class TimmBackbone(Backbone):
    """A timm model without its classifier.

    ``Features.cls`` is timm's pooling of the model: the class token of a ``vit_*``, the average over the last feature
    map of a convolutional network (``model_args={"global_pool": ...}`` chooses another). ``Features.patches`` are the
    patch tokens without class and register tokens, or the last feature map row by row; in a few networks (MobileNetV3)
    they are narrower than ``embed_dim``.

    ``vit_small_patch16_224`` and its other sizes are DINO's ViT (arXiv:2104.14294): qkv bias, LayerNorm epsilon
    1e-6, linear weights truncated normal of std 0.02 with zero bias, stochastic depth rising linearly over the blocks.
    With ``positions="dino"`` one difference remains: the class token is initialised with std 1e-6, DINO's with 0.02.

    Args:
        name: a timm name ("vit_small_patch16_224", "resnet50.a1_in1k"), ``hf-hub:owner/model`` or
            ``local-dir:folder``.
        in_chans: number of channels of the images.
        drop_path_rate: stochastic depth of the last block, at least 0 and below 1.
        pretrained: whether to start from timm's weights.
        small_image_stem: whether a ResNet has a 3x3 stride-1 stem without max-pool, for images of about 32 px. The stem
            is initialised randomly even if the rest is pretrained; it is as wide as the one it replaces (64, or
            2 x stem_width with ``model_args={"stem_type": "deep", "stem_width": ...}``).
        model_args: more arguments for timm (``{"img_size": 32, "patch_size": 4}``).
        fused_attention: whether attention is one fused kernel; None leaves it to timm. On a CPU under bf16 autocast
            plain products train 1.5 times as fast (ViT-Ti, 37 and 197 tokens), and new runs there take and record them
            for None; in fp32 fused is no slower.
        positions: how a ViT's position embeddings are resampled for images of other sizes than the stored one:
            "timm" by the ratio of sizes, with antialias, in float32; "dino" as in DINO's published code, by a scale of
            (n + 0.1) / N for each side (n patches wanted, N stored), without antialias.

    Raises:
        UnknownName: timm has no such model, or ``positions`` no such rule.
        NotSupported: the model has no stem to replace, or no positions to resample by DINO's rule.
        SSLKitError: an argument does not fit the model or is out of range, or its weights cannot be loaded.
    """

    model: Any
    """The timm model; ``Any`` because each architecture has its own attributes."""

    def __init__(
        self,
        name: str,
        in_chans: int = 3,
        drop_path_rate: float = 0.0,
        pretrained: bool = False,
        small_image_stem: bool = False,
        model_args: dict[str, Any] | None = None,
        fused_attention: bool | None = None,
        positions: Positions = "timm",
    ) -> None:
        super().__init__()
        if not 0 <= drop_path_rate < 1:
            raise RecipeError(f"the drop_path_rate of TimmBackbone is at least 0 and below 1, not {drop_path_rate}")
        if positions not in get_args(Positions):
            raise UnknownName("rule", positions, get_args(Positions), where="positions")
        check_model_args(model_args or {}, in_chans)
        self.name, self.in_chans = name, in_chans
        self.drop_path_rate, self.small_image_stem = drop_path_rate, small_image_stem
        self.model_args, self.fused_attention = dict(model_args or {}), fused_attention
        self.positions = positions
        # Passed only if set, since some of timm's architectures do not take it.
        dropped = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
        self.model = create_timm_model(name, pretrained, {"in_chans": in_chans, **dropped, **self.model_args})
        if small_image_stem:
            use_small_image_stem(self.model, name)
        if fused_attention is not None:
            self.choose_attention(fused_attention)
        if positions != "timm":
            use_scaled_positions(self.model, name)
        self.embed_dim = int(self.model.head_hidden_size)
        self.patch_size = _patch_size(self.model)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Return features (N, F) and patches (N, P, F) of images (N, C, H, W).

        Args:
            images: normalised images, in the dtype of the weights.
            mask: not supported yet.

        Raises:
            NotSupported: a mask was given.
            RecipeError: the images have another number of channels, or sides that the model cannot take.
        """
        if mask is not None:
            raise NotSupported(f"TimmBackbone({self.name!r}) cannot hide patches: leave mask out")
        self._check(images)
        seen = self.model.forward_features(images)
        return Features(self.model.forward_head(seen, pre_logits=True), self._patches(seen))

    def layers(self, images: Tensor, n: int) -> list[Features]:
        """Return the features of the last ``n`` blocks (stages of a convolutional network), normalised by the
        final norm where the model has one, the last block last.

        ``cls`` is each block's class token, or the mean of its patches where there is none.

        Raises:
            NotSupported: timm does not return the features of single blocks of this model.
            RecipeError: it has fewer than ``n`` blocks, or the images do not fit.
        """
        blocks = len(getattr(self.model, "feature_info", None) or ())
        if not hasattr(self.model, "forward_intermediates") or not blocks:
            raise NotSupported(f"timm model {self.name!r} does not offer the features of its single layers")
        if not 1 <= n <= blocks:
            raise RecipeError(f"timm model {self.name!r} has {blocks} layers: ask for 1 to {blocks}, not {n}")
        self._check(images)
        prefix = {"return_prefix_tokens": True} if self._num_prefix_tokens else {}
        found = self.model.forward_intermediates(images, indices=n, norm=True, intermediates_only=True, **prefix)
        return [self._layer(each) for each in found]

    def attention(self, images: Tensor) -> Tensor:
        """Return the last block's attention of the class token to the patches, (N, heads, H/p, W/p).

        The weights are the softmax over all tokens; those on class and register tokens are left out, so the
        maps sum to less than 1. Fused attention is switched off for this one block and call.

        Raises:
            NotSupported: the model has no class token or no attention to read.
        """
        block = self._attention_block()
        self._check(images)
        # The input of the dropout behind the softmax; the fused kernel calls no such module.
        kept: list[Tensor] = []
        hook = block.attn_drop.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        fused, block.fused_attn = block.fused_attn, False
        try:
            self.model.forward_features(images)
        finally:
            hook.remove()
            block.fused_attn = fused
        rows, columns = self.model.patch_embed.dynamic_feat_size(tuple(images.shape[-2:]))
        return kept[0][:, :, 0, self._num_prefix_tokens :].unflatten(-1, (rows, columns))

    def checkpoint_activations(self) -> None:
        """Store only the activations between timm's blocks (stages, for some networks), and recompute the others.

        Raises:
            NotSupported: timm has no activation checkpointing for this architecture.
        """
        try:
            self.model.set_grad_checkpointing(True)
        except (AttributeError, AssertionError) as error:
            raise NotSupported(f"timm cannot recompute the activations of {self.name!r}") from error
        self.recomputes = True

    def named_weights(self) -> dict[str, Tensor]:
        """Return parameters and buffers by timm's names."""
        weights: dict[str, Tensor] = self.model.state_dict()
        return weights

    def resampled(self, name: str, weight: Tensor) -> Tensor:
        """Return a weight, by timm's name, in the shape of this model; see `sslkit.backbones.resampling.resample`."""
        return resample(self.model, name, weight)

    def grid_of(self, size: int) -> tuple[int, int] | None:
        """Return rows and columns of patches of images of ``size`` x ``size`` px; None without position embeddings."""
        embed = getattr(self.model, "patch_embed", None)
        if not isinstance(embed, PatchEmbed) or getattr(self.model, "pos_embed", None) is None:
            return None
        rows, columns = embed.dynamic_feat_size((size, size))
        return int(rows), int(columns)

    def grid_stored(self, positions: Tensor) -> tuple[int, int] | None:
        """Return rows and columns of the patches of position embeddings; None if they are not those of a square."""
        own = self.model.patch_embed.grid_size
        prefix = self.model.pos_embed.shape[1] - own[0] * own[1]
        return own if positions.shape == self.model.pos_embed.shape else square_grid(positions, prefix)

    def save(self, folder: Path, preprocessing: Preprocessing | None = None) -> None:
        """Write model.safetensors and a config.json that leaves out what timm records of its own pretrained weights.

        ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads the folder too, except with
        ``small_image_stem``, which timm does not have; ``timm.data.resolve_model_data_config`` then returns those
        values of ``preprocessing`` that timm's format has, or else the mean and std of `default_preprocessing`.
        With ``positions="dino"`` timm gives the same features at the stored size only; `save_for_timm` chooses it.

        Raises:
            NotSupported: the model takes images of one size only, and the preprocessing is of another.
        """
        arguments, default = self._portable_arguments(), default_preprocessing(self.in_chans)
        images = images_for_timm(preprocessing) if preprocessing else {"mean": default.mean, "std": default.std}
        architecture = {"in_chans": self.in_chans, **arguments["model_args"]}
        if getattr(self.model, "dynamic_img_size", False):
            architecture["dynamic_img_size"] = True
        # safetensors refuses the strided weights of the channels-last layout that training uses.
        model = copy.deepcopy(self.model).to(memory_format=torch.contiguous_format)
        model.pretrained_cfg = {key: value for key, value in model.pretrained_cfg.items() if key in ARCHITECTURE}
        try:
            save_for_hf(
                model,
                str(folder),
                model_args=architecture,
                model_config={"sslkit": {"backbone": type(self).__name__, "arguments": arguments}},
                data_config=images,
                safe_serialization=True,
            )
        except ValueError as error:
            raise NotSupported(f"timm cannot write {self.name!r}: {error}") from error
        leave_out_num_classes(folder / "config.json")

    def save_for_timm(self, folder: Path, preprocessing: Preprocessing) -> None:
        """Write the files of `save`, if timm can read them.

        With ``positions="dino"`` the positions are stored for the size of ``preprocessing``, at which timm then gives
        the same features; at other sizes timm resamples them by its own rule.

        Raises:
            NotSupported: the model has ``small_image_stem``, which timm does not have.
        """
        if self.small_image_stem:
            raise NotSupported(
                f"timm cannot load {self.name!r} with small_image_stem, a 3x3 stride-1 stem that it does not build. "
                "Export with --to onnx, or train with small_image_stem: false."
            )
        portable = self if self.positions == "timm" else self._stored_for(preprocessing.size)
        portable.save(folder, preprocessing)

    def for_published_code(self, size: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return weights by the names of DINO's published code, and the arguments by which it builds the network.

        That code resamples positions by its own rule, so with ``positions="timm"`` they are stored for ``size``.

        Args:
            size: of the images for which the features must be equal, in pixels.

        Raises:
            NotSupported: that code does not build such a network.
        """
        arguments = published_arguments(self.model, self.name)
        grid = self.grid_of(size)
        stays = grid is None or grid == self.model.patch_embed.grid_size or self.positions != "timm"
        portable = self if stays else self._stored_for(size)
        return portable.named_weights(), arguments

    def _stored_for(self, size: int) -> "TimmBackbone":
        """Return a copy that stores its positions for images of ``size`` x ``size`` px."""
        stored = copy.deepcopy(self)
        stored.model.set_input_size((size, size))
        stored.model_args["img_size"] = size
        return stored

    @classmethod
    def load(cls, folder: Path) -> "TimmBackbone":
        """Load what ``save`` wrote, or a folder that timm itself wrote."""
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        if "sslkit" not in config:
            in_chans = config.get("pretrained_cfg", config).get("input_size", [3])[0]
            return cls(f"local-dir:{folder}", config.get("model_args", {}).get("in_chans", in_chans), pretrained=True)
        backbone = cls(**config["sslkit"]["arguments"])
        weights = load_file(Path(folder) / "model.safetensors")
        check_dtypes(weights, backbone.named_weights(), f"{folder}/model.safetensors")
        # Models in half precision are saved as such, but created in float32.
        dtype = next((tensor.dtype for tensor in weights.values() if tensor.is_floating_point()), torch.float32)
        backbone.model.to(dtype).load_state_dict(weights)
        return backbone

    def untrained(self) -> "TimmBackbone":
        """Return a backbone of the same architecture with newly drawn weights."""
        return type(self)(**self._portable_arguments())

    @property
    def has_attention(self) -> bool:
        """Whether there is attention that can be fused or not."""
        return any(hasattr(module, "fused_attn") for module in self.model.modules())

    def choose_attention(self, fused: bool) -> None:
        """Compute attention by one fused kernel or by plain matrix products, as ``fused_attention`` says from now."""
        self.fused_attention = fused
        set_fused_attention(self.model, fused)

    @property
    def num_heads(self) -> int | None:
        """Attention heads of a ViT's blocks; None for other networks."""
        blocks = getattr(self.model, "blocks", None)
        attention = getattr(blocks[0], "attn", None) if isinstance(blocks, nn.Sequential | nn.ModuleList) else None
        return getattr(attention, "num_heads", None)

    @property
    def _num_prefix_tokens(self) -> int:
        return getattr(self.model, "num_prefix_tokens", None) or 0

    def _portable_arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the name of a folder or of the Hub replaced by its architecture."""
        name, model_args = self.name, self.model_args
        if name.startswith(FOREIGN):
            name = self.model.pretrained_cfg["architecture"]
            own = {"in_chans", "num_classes", "drop_path_rate"}
            made_with = getattr(self.model, "_model_args", {})
            model_args = {key: value for key, value in made_with.items() if key not in own} | model_args
        return {
            "name": name,
            "in_chans": self.in_chans,
            "drop_path_rate": self.drop_path_rate,
            "small_image_stem": self.small_image_stem,
            "model_args": model_args,
            "fused_attention": self.fused_attention,
            "positions": self.positions,
        }

    def _check(self, images: Tensor) -> None:
        """Raise RecipeError for images that the model cannot take, since timm's own errors are less clear."""
        channels, *sides = images.shape[-3:]
        if channels != self.in_chans:
            raise RecipeError(f"{self.name!r} was built for in_chans={self.in_chans}, the images have {channels}")
        patch = self.patch_size
        if patch and any(side % patch for side in sides):
            lower = sides[0] // patch * patch
            raise RecipeError(
                f"images of {sides[0]}x{sides[1]} px do not divide into the {patch} px patches of {self.name!r}. "
                f"Use sizes that are multiples of {patch}, such as {lower or patch} or {lower + patch}."
            )
        embed: Any = getattr(self.model, "patch_embed", None)
        if getattr(embed, "strict_img_size", False) and embed.img_size and tuple(sides) != tuple(embed.img_size):
            raise RecipeError(
                f"{self.name!r} sees images of {embed.img_size[0]}x{embed.img_size[1]} px alone, not "
                f"{sides[0]}x{sides[1]}. Set model_args: {{img_size: {sides[0]}}}, or choose another model."
            )

    def _patches(self, seen: Tensor) -> Tensor | None:
        """Return tokens (N, P, F) without the prefix, or a feature map, NCHW or NHWC, row by row; None for others."""
        if not isinstance(seen, Tensor) or seen.ndim not in (3, 4):
            return None
        if seen.ndim == 3:
            return seen[:, self._num_prefix_tokens :]
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            return seen.flatten(1, 2)
        return seen.flatten(2).transpose(1, 2)

    def _layer(self, found: Tensor | tuple[Tensor, Tensor]) -> Features:
        grid, prefix = found if isinstance(found, tuple) else (found, None)
        patches = grid.flatten(2).transpose(1, 2)
        has_class_token = prefix is not None and getattr(self.model, "cls_token", None) is not None
        return Features(prefix[:, 0] if has_class_token else patches.mean(1), patches)  # type: ignore[index]

    def _attention_block(self) -> Any:
        blocks = getattr(self.model, "blocks", None)
        block = getattr(blocks[-1], "attn", None) if isinstance(blocks, nn.Sequential | nn.ModuleList) else None
        readable = hasattr(block, "attn_drop") and hasattr(block, "fused_attn")
        if not readable or getattr(self.model, "cls_token", None) is None or not self._num_prefix_tokens:
            raise NotSupported(f"timm model {self.name!r} has no attention of a class token to its patches")
        return block


def _patch_size(model: nn.Module) -> int | None:
    embed = getattr(model, "patch_embed", None)
    if not isinstance(embed, PatchEmbed) or embed.dynamic_img_pad or embed.img_size is None:
        return None
    return int(embed.patch_size[0])
