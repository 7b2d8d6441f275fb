"""Partial convolutions for irregular holes (Liu et al. 2018, arXiv:1804.07723): the network and what it can do."""

from pconv.checkpoint import (
    CheckpointError,
    CheckpointInfo,
    describe_checkpoint,
    import_naoto0804,
    load_checkpoint,
    save_checkpoint,
)
from pconv.filling import inpaint
from pconv.layers import PartialConv2d
from pconv.network import PConvUNet, PConvUNetConfig, fold_batch_norm
from pconv.operations import composite, place_pixels, upscale
from pconv.texture import add_texture
from pconv.tiles import upscale_tiles

__all__ = [
    "CheckpointError",
    "CheckpointInfo",
    "PConvUNet",
    "PConvUNetConfig",
    "PartialConv2d",
    "add_texture",
    "composite",
    "describe_checkpoint",
    "fold_batch_norm",
    "import_naoto0804",
    "inpaint",
    "load_checkpoint",
    "place_pixels",
    "save_checkpoint",
    "upscale",
    "upscale_tiles",
]
