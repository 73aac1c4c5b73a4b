"""Turns what a piston of Pistonball sees into actions by a fixed rule: a line to hold learned pistons against."""

import numpy as np
from jaxtyping import Int, UInt8

DOWN, UP = 0, 2
ABOVE = 54
"""Rows of the picture, from the top, that no piston reaches."""
PASSED = 26
"""Column of the picture: a ball whose middle is left of it has its slope towards the wall over the piston, which spans 21 to 43."""
BALL = 80
"""How much more blue than red the ball is, at least; all else above the pistons is grey."""
SPECK = 3
"""Pixels of the ball fewer than which say nothing."""


def lift_behind(obs: UInt8[np.ndarray, "E channels height width"]) -> Int[np.ndarray, " E"]:
    """Rise where the ball has passed to the left, so that it rolls on, and make way where it has not or is out of sight."""
    red, blue = (obs[:, channel, :ABOVE].astype(np.int64) for channel in (0, 2))
    columns = (blue - red > BALL).sum(1)
    pixels = columns.sum(1)
    middle = (columns * np.arange(obs.shape[-1])).sum(1) / np.maximum(pixels, 1)
    return np.where((pixels >= SPECK) & (middle < PASSED), UP, DOWN)
