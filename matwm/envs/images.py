"""Turns pictures of any size into small ones for the networks."""

import numpy as np
import torch
from jaxtyping import UInt8
from torch.nn.functional import interpolate

IMAGE_SHAPE = (3, 64, 64)
"""Channels, height and width of every image that agents see."""


def small(picture: UInt8[np.ndarray, "height width channels"]) -> UInt8[np.ndarray, "3 64 64"]:
    """Return a picture at 64 x 64, antialiased and squeezed if it was no square; a grey one gets three equal channels."""
    channels, height, width = IMAGE_SHAPE
    pixels = np.ascontiguousarray(picture.transpose(2, 0, 1))
    if pixels.shape[1:] != (height, width):
        pixels = interpolate(torch.from_numpy(pixels)[None], (height, width), mode="bilinear", antialias=True)[0].numpy()
    return pixels if len(pixels) == channels else np.repeat(pixels, channels, axis=0)
