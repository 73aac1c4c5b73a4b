"""Draws an episode as an animated GIF: the same bytes for the same episode."""

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.types import NO_ACTION, EnvSpec

WIDTH = 288
HEADER = 46
COLOURS = 64
FRAME_MS, LAST_FRAME_MS = 120, 1500


def animate(env: EnvConfig, seed: int, actions: Int[np.ndarray, "T N"], title: str) -> bytes:
    """Return the GIF of the episode that a seed and its actions make; rows of -1 at the end are nobody's."""
    taken = actions[(actions != NO_ACTION).all(1)]
    frames = [_framed(*scene, title, len(taken)) for scene in _scenes(env, seed, taken)]
    colours = palette(frames)
    first, *others = [frame.quantize(palette=colours, dither=Image.Dither.NONE) for frame in frames]
    file = io.BytesIO()
    durations = [FRAME_MS] * len(others) + [LAST_FRAME_MS]
    first.save(file, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=False, disposal=1)
    return file.getvalue()


def palette(frames: Sequence[Image.Image]) -> Image.Image:
    """Return one palette for all frames, or colours would flicker; by coverage, or a small body would lose its own to the many greys."""
    some = frames[:: max(1, len(frames) // 6)]
    sheet = Image.new("RGB", (some[0].width, sum(frame.height for frame in some)))
    for number, frame in enumerate(some):
        sheet.paste(frame, (0, number * frame.height))
    return sheet.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def _scenes(env: EnvConfig, seed: int, actions: Iterable[Int[np.ndarray, " N"]]) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], int, str]]:
    """Yield each picture with the number of steps taken and the returns so far."""
    with contextlib.closing(make_env(env, render=True)) as drawn:
        returns = np.zeros(drawn.spec.num_agents)
        drawn.reset(seed)
        yield drawn.render(), 0, _returns_line(drawn.spec, returns)
        for step, action in enumerate(actions, start=1):
            returns += drawn.step(action).reward
            yield drawn.render(), step, _returns_line(drawn.spec, returns)


def _returns_line(spec: EnvSpec, returns: Sequence[float] | np.ndarray) -> str:
    means: Mapping[str, float] = {role: float(np.mean([returns[n] for n in numbers])) for role, numbers in spec.roles().items()}
    return "   ".join(f"{role} {mean:+.1f}" for role, mean in means.items())


def _framed(picture: UInt8[np.ndarray, "h w 3"], step: int, returns: str, title: str, length: int) -> Image.Image:
    height = round(WIDTH * picture.shape[0] / picture.shape[1])
    frame = Image.new("RGB", (WIDTH, HEADER + height), "white")
    frame.paste(Image.fromarray(picture).resize((WIDTH, height), Image.Resampling.LANCZOS), (0, HEADER))
    draw = ImageDraw.Draw(frame)
    font = ImageFont.load_default(size=13)
    draw.text((8, 5), title, fill=(20, 20, 20), font=font)
    draw.text((8, 24), f"t = {step}/{length}", fill=(90, 90, 90), font=font)
    draw.text((WIDTH - 8, 24), returns, fill=(20, 20, 20), font=font, anchor="ra")
    draw.line([(0, HEADER - 1), (WIDTH, HEADER - 1)], fill=(200, 200, 200))
    return frame
