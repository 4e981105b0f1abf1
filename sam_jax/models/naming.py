"""Where the arrays of a ResNet or ViT are in the files of other libraries.

Kernels are stored there as ``[outputs, inputs, *window]`` and have two dimensions in
attention, in timm and torchvision those of query, key and value in one array; in the
npz files of google-research/vision_transformer they are stored as here.
"""

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import errors

Shapes = Mapping[str, tuple[int, ...]]  # of the arrays of a network, by their names

# Our layer -> theirs. Of a block n is the number in the network, s that of its stage
# and i in the stage, k that of the convolution, all from 0; and S = s + 1, K = k + 1.
_RESNET = {
    "ImageNetStem_0.Conv_0": "conv1",
    "ImageNetStem_0.BatchNorm_0": "bn1",
    "Block.Conv": "layer{S}.{i}.conv{K}",
    "Block.BatchNorm": "layer{S}.{i}.bn{K}",
    "Block.Conv.shortcut": "layer{S}.{i}.downsample.0",
    "Block.BatchNorm.shortcut": "layer{S}.{i}.downsample.1",
    "Dense_0": "fc",
}
_HF_RESNET = {
    "ImageNetStem_0.Conv_0": "resnet.embedder.embedder.convolution",
    "ImageNetStem_0.BatchNorm_0": "resnet.embedder.embedder.normalization",
    "Block.Conv": "resnet.encoder.stages.{s}.layers.{i}.layer.{k}.convolution",
    "Block.BatchNorm": "resnet.encoder.stages.{s}.layers.{i}.layer.{k}.normalization",
    "Block.Conv.shortcut": "resnet.encoder.stages.{s}.layers.{i}.shortcut.convolution",
    "Block.BatchNorm.shortcut": (
        "resnet.encoder.stages.{s}.layers.{i}.shortcut.normalization"
    ),
    "Dense_0": "classifier.1",
}


def _vit(
    ends: str, block: str, norms: str, attention: str, mlp: str
) -> Mapping[str, str]:
    """Names of a ViT, each argument those of some layers with spaces between."""
    query, *others, out = attention.split()
    key, value = others or (query, query)
    inside = {
        **dict(zip(("LayerNorm_0", "LayerNorm_1"), norms.split(), strict=True)),
        **dict(zip(("Dense_0", "Dense_1"), mlp.split(), strict=True)),
        "MultiHeadDotProductAttention_0.query": query,
        "MultiHeadDotProductAttention_0.key": key,
        "MultiHeadDotProductAttention_0.value": value,
        "MultiHeadDotProductAttention_0.out": out,
    }
    ours = ("token", "positions", "Conv_0", "LayerNorm_0", "Dense_0")
    return {
        **dict(zip(ours, ends.split(), strict=True)),
        **{f"EncoderBlock.{our}": block + their for our, their in inside.items()},
    }


_VIT = _vit(
    "cls_token pos_embed patch_embed.proj norm head",
    "blocks.{n}.",
    "norm1 norm2",
    "attn.qkv attn.proj",
    "mlp.fc1 mlp.fc2",
)
_TORCHVISION_VIT = _vit(
    "class_token encoder.pos_embedding conv_proj encoder.ln heads.head",
    "encoder.layers.encoder_layer_{n}.",
    "ln_1 ln_2",
    "self_attention.in_proj self_attention.out_proj",
    "mlp.0 mlp.3",
)
_HF_VIT = _vit(
    "vit.embeddings.cls_token vit.embeddings.position_embeddings "
    "vit.embeddings.patch_embeddings.projection vit.layernorm classifier",
    "vit.encoder.layer.{n}.",
    "layernorm_before layernorm_after",
    "attention.attention.query attention.attention.key attention.attention.value "
    "attention.output.dense",
    "intermediate.dense output.dense",
)
_GOOGLE_VIT = _vit(
    "cls Transformer/posembed_input/pos_embedding embedding "
    "Transformer/encoder_norm head",
    "Transformer/encoderblock_{n}/",
    "LayerNorm_0 LayerNorm_2",
    "MultiHeadDotProductAttention_1/query MultiHeadDotProductAttention_1/key "
    "MultiHeadDotProductAttention_1/value MultiHeadDotProductAttention_1/out",
    "MlpBlock_3/Dense_0 MlpBlock_3/Dense_1",
)

_GOOGLE = "vision_transformer"
# Library -> a layer that only networks of a kind have -> names of that kind.
LIBRARIES: Mapping[str, Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "timm": {"ImageNetStem_0": _RESNET, "EncoderBlock_0": _VIT},
        "torchvision": {"ImageNetStem_0": _RESNET, "EncoderBlock_0": _TORCHVISION_VIT},
        "hf": {"ImageNetStem_0": _HF_RESNET, "EncoderBlock_0": _HF_VIT},
        _GOOGLE: {"EncoderBlock_0": _GOOGLE_VIT},
    }
)
# What a ViT of ours computes by default, and those of the libraries.
VIT_DEFAULTS: Mapping[str, Any] = MappingProxyType({"gelu": "exact", "norm_eps": 1e-6})
_OTHERS = {"hf": {"norm_eps": 1e-12}, _GOOGLE: {"gelu": "tanh"}}
VIT_OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {library: {**VIT_DEFAULTS, **_OTHERS.get(library, {})} for library in LIBRARIES}
)
# Names in files of earlier versions of torchvision.
EARLIER = {"mlp.linear_1.": "mlp.0.", "mlp.linear_2.": "mlp.3."}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_LEAVES |= {"mean": "running_mean", "var": "running_var"}


class Place(NamedTuple):
    """Where an array is in a file.

    Attributes:
        name: of the array there.
        part: which third of its first dimension; None for all.
    """

    name: str
    part: int | None = None


def places(library: str, shapes: Shapes) -> dict[str, Place]:
    """Where the arrays of a network are in a file of a library.

    Args:
        library: one of `LIBRARIES`.
        shapes: of the network's arrays, by names such as ``params.Dense_0.kernel``.

    Returns:
        Places by the names of arrays, of those that the library's networks have.

    Raises:
        UserError: if it has no such network.

    Example:
        >>> shapes = {"params.EncoderBlock_0.LayerNorm_1.scale": (64,)}
        >>> places("timm", shapes)
        {'params.EncoderBlock_0.LayerNorm_1.scale': Place(name='blocks.0.norm2.weight', part=None)}
    """  # noqa: E501
    layers = next(
        (
            names
            for mark, names in LIBRARIES[library].items()
            if any(mark in name.split(".") for name in shapes)
        ),
        None,
    )
    if layers is None:
        kinds = {"ImageNetStem_0": "resnet.._imagenet", "EncoderBlock_0": "vit_.."}
        raise errors.UserError(
            f"{library} has no network like this one: take config.model.name="
            + " or ".join(kinds[mark] for mark in LIBRARIES[library])
        )
    numbers = _numbers(shapes)
    found = {name: _place(name, library, layers, numbers) for name in shapes}
    return {name: place for name, place in found.items() if place is not None}


def _numbers(shapes: Shapes) -> dict[int, dict[str, int]]:
    """Of each residual block its stage, its number there, and how many convolutions.

    The first block of a stage is the one that has a convolution around it.
    """
    found: dict[int, dict[str, int]] = {}
    stage, first = 0, 0
    for n in range(len(shapes)):
        kernel = shapes.get(f"params.Block_{n}.Conv_0.kernel")
        if kernel is None:
            return found
        convolutions = 2 if kernel[0] == 3 else 3  # a basic block, or a bottleneck
        if n and f"params.Block_{n}.Conv_{convolutions}.kernel" in shapes:
            stage, first = stage + 1, n
        found[n] = {"s": stage, "i": n - first, "convolutions": convolutions}
    return found


def _place(
    name: str,
    library: str,
    layers: Mapping[str, str],
    numbers: Mapping[int, Mapping[str, int]],
) -> Place | None:
    _, *path, leaf = name.split(".")
    block = re.fullmatch(r"(\w*Block)_(\d+)", path[0]) if path else None
    values = {}
    if block:
        path[0], n = block[1], int(block[2])
        values = {"n": n, **numbers.get(n, {})}
    if path and path[0] == "Block":
        kind, _, k = path[1].partition("_")
        shortcut = int(k) == values["convolutions"]
        path = ["Block", kind, *["shortcut"] * shortcut]
        values |= {"k": int(k), "K": int(k) + 1, "S": values["s"] + 1}
    single = ".".join([*path, leaf]) in layers  # the token, without a layer
    layer = layers.get(".".join([*path, leaf] if single else path))
    if layer is None or not (single or leaf in _LEAVES):
        return None
    where = layer.format(**values)
    if single:
        return Place(where)
    if library == _GOOGLE:
        return Place(f"{where}/{leaf}")
    in_one = where.endswith(("qkv", "in_proj"))
    between = "_" if where.endswith("in_proj") else "."
    part = ("query", "key", "value").index(path[-1]) if in_one else None
    return Place(f"{where}{between}{_LEAVES[leaf]}", part)


def to_library(library: str, name: str, array: np.ndarray) -> np.ndarray:
    """An array of ours as a library's file stores it; of three, its third.

    Args:
        library: one of `LIBRARIES`.
        name: such as ``params.Dense_0.kernel``.
        array: of that name.

    Example:
        >>> to_library("timm", "params.Dense_0.kernel", np.zeros((3, 10))).shape
        (10, 3)
    """
    *_, layer, leaf = name.split(".")
    if library == _GOOGLE or leaf not in _LEAVES:
        return array
    if leaf != "kernel":
        return array.reshape(-1)
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    inputs = array.shape[:-1] if layer == "out" else array.shape[:1]
    return array.reshape(math.prod(inputs), -1).T


def from_library(
    library: str, name: str, array: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """The inverse of `to_library`.

    Args:
        library: one of `LIBRARIES`.
        name: of the array here.
        array: as stored in the file, of the shape that `to_library` gives.
        shape: it has here.
    """
    if library == _GOOGLE or not name.endswith(".kernel"):
        return array.reshape(shape)
    return array.transpose(2, 3, 1, 0) if len(shape) == 4 else array.T.reshape(shape)


def resized(positions: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Positions of a ViT, interpolated for another number of patches.

    Cubic, with antialiasing where there are fewer (Keys 1981, a = -0.5), as timm does.

    Args:
        positions: [1, 1 + side * side, width], the token's first.
        grid: patches of a column, and of a row.

    Returns:
        [1, 1 + grid[0] * grid[1], width].

    Raises:
        UserError: if the patches do not form a square.

    Example:
        >>> resized(np.ones((1, 5, 8), np.float32), (3, 4)).shape
        (1, 13, 8)
    """
    _, count, width = positions.shape
    if (side := math.isqrt(count - 1)) ** 2 != count - 1:
        raise errors.UserError(
            f"positions of {count - 1} patches do not form a square, and cannot be "
            f"interpolated to {grid[0]}x{grid[1]}: give images of the same size"
        )
    patches = jnp.asarray(positions[0, 1:]).reshape(side, side, width)
    patches = jax.image.resize(patches, (*grid, width), "bicubic")
    patches = np.asarray(patches).reshape(1, -1, width)
    return np.concatenate([positions[:, :1], patches], axis=1)
