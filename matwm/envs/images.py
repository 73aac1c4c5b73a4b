"""Turns pictures of any size into small ones for the networks."""

import numpy as np
from jaxtyping import UInt8

IMAGE_SHAPE = (3, 64, 64)
"""Channels, height and width of every image that agents see."""


def small(picture: UInt8[np.ndarray, "height width channels"]) -> UInt8[np.ndarray, "3 64 64"]:
    """Return a picture at 64 x 64, antialiased and squeezed if it was no square; a grey one gets three equal channels."""
    # Pygame's lie in memory column by column, and to put them in order takes longer than to shrink them.
    turned = picture.transpose(1, 0, 2)
    pixels = _shrunk(turned).transpose(0, 2, 1) if turned.flags.c_contiguous else _shrunk(np.ascontiguousarray(picture))
    return pixels if len(pixels) == IMAGE_SHAPE[0] else np.repeat(pixels, IMAGE_SHAPE[0], axis=0)


def _shrunk(picture: UInt8[np.ndarray, "height width channels"]) -> UInt8[np.ndarray, "channels 64 64"]:
    if picture.shape[:2] == IMAGE_SHAPE[1:]:
        return picture.transpose(2, 0, 1)
    import torch  # Here: whatever reads params.yaml imports the families of environments, and torch takes seconds.
    from torch.nn.functional import interpolate

    pixels = torch.from_numpy(picture if picture.flags.writeable else picture.copy()).permute(2, 0, 1)
    return interpolate(pixels[None], IMAGE_SHAPE[1:], mode="bilinear", antialias=True)[0].numpy()
