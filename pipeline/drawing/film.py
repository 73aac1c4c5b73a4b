"""Draws episodes large enough for a talk, frame by frame as they are played, and makes a GIF or an MP4 of them."""

import io
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

from matwm.errors import UserError
from matwm.evaluation import Scene
from pipeline.drawing.animation import palette

HEIGHT, LEAST_WIDTH, MOST_WIDTH = 720, 720, 1280
MARGIN, LINE = 18, 34
LAST_FRAME_SECONDS = 1.5
PALETTE_FRAMES = 32
"""The GIF's colours are those of its first frames, or all of them would have to be held in memory."""
DARK, QUIET, RULE = (20, 20, 20), (110, 110, 110), (200, 200, 200)


class Screen(Protocol):
    """Where frames of one size go, one after the other."""

    def show(self, frame: Image.Image, *, is_last: bool) -> None:
        """Take a frame; the last one of an episode stays longer."""
        ...

    def finish(self) -> bytes:
        """Return the contents of the file, if it becomes one."""
        ...


def framed(scene: Scene, title: str, players: Mapping[str, str]) -> Image.Image:
    """Return a frame: above the picture the title, the step, and for each role who plays it and its return until now.

    `players` says who plays each role; the return is the mean over the role's agents.
    """
    spec, roles = scene.spec, scene.spec.roles()
    top = MARGIN + LINE * (1 + len(roles)) + MARGIN // 2
    high, wide, _ = scene.picture.shape
    scale = min((HEIGHT - top) / high, MOST_WIDTH / wide)
    size = round(wide * scale), round(high * scale)
    width = max(LEAST_WIDTH, size[0] + size[0] % 2)  # videos need even sizes
    frame = Image.new("RGB", (width, HEIGHT), "white")
    resampling = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    left = (width - size[0]) // 2
    frame.paste(Image.fromarray(scene.picture).resize(size, resampling), (left, top))
    draw = ImageDraw.Draw(frame)
    draw.rectangle([left - 1, top - 1, left + size[0], HEIGHT], outline=RULE)
    limit = f" of {spec.max_steps}" if spec.max_steps else ""
    step = f"step {scene.step}{limit}"
    draw.text((width - MARGIN, MARGIN), step, QUIET, _font(20), anchor="ra")
    draw.text((MARGIN, MARGIN), _fitting(title, 20, width - 3 * MARGIN - _font(20).getlength(step)), DARK, _font(20, is_bold=True))
    for row, (role, numbers) in enumerate(roles.items(), start=1):
        y = MARGIN + row * LINE
        count = f" × {len(numbers)}" if len(numbers) > 1 else ""
        earned = f"{'mean ' * (len(numbers) > 1)}return {scene.returns[numbers].mean():+.1f}"
        draw.text((width - MARGIN, y), earned, DARK, _font(22, is_bold=True), anchor="ra")
        draw.text((MARGIN, y), f"{role}{count}", DARK, _font(22))
        x = MARGIN + _font(22).getlength(f"{role}{count}   ")
        draw.text((x, y), _fitting(players[role], 22, width - x - 2 * MARGIN - _font(22).getlength(earned)), QUIET, _font(22))
    draw.line([(0, top - 1), (width, top - 1)], RULE)
    return frame


class Gif:
    """Frames as an animated GIF: the same bytes for the same frames."""

    def __init__(self, fps: float) -> None:
        self._ms = 1000 / fps
        self._waiting: list[Image.Image] = []
        self._frames: list[Image.Image] = []
        self._durations: list[float] = []
        self._palette: Image.Image | None = None

    def show(self, frame: Image.Image, *, is_last: bool) -> None:
        """Take a frame."""
        self._waiting.append(frame)
        self._durations.append(self._ms + is_last * 1000 * LAST_FRAME_SECONDS)
        if self._palette or len(self._waiting) == PALETTE_FRAMES:
            self._quantize()

    def finish(self) -> bytes:
        """Return the file."""
        self._quantize()
        file = io.BytesIO()
        first, *others = self._frames
        first.save(file, "GIF", save_all=True, append_images=others, duration=self._durations, loop=0, optimize=False, disposal=1)
        return file.getvalue()

    def _quantize(self) -> None:
        if self._waiting and self._palette is None:
            self._palette = palette(self._waiting)
        for frame in self._waiting:
            assert self._palette
            self._frames.append(frame.quantize(palette=self._palette, dither=Image.Dither.NONE))
        self._waiting = []


class Mp4:
    """Frames as an MP4 (H.264), by ffmpeg."""

    def __init__(self, fps: float) -> None:
        """Look for ffmpeg: the system's, else that of the package imageio-ffmpeg.

        Raises:
            UserError: there is none.
        """
        self._program, self._fps = ffmpeg(), fps
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "film.mp4"

    def show(self, frame: Image.Image, *, is_last: bool) -> None:
        """Take a frame.

        Raises:
            UserError: ffmpeg fails.
        """
        self._process = self._process or self._started(frame.size)
        assert self._process.stdin
        try:
            for _ in range(1 + is_last * round(LAST_FRAME_SECONDS * self._fps)):
                self._process.stdin.write(frame.tobytes())
        except BrokenPipeError:
            self.finish()

    def finish(self) -> bytes:
        """Return the file.

        Raises:
            UserError: ffmpeg fails.
        """
        assert self._process
        _, errors = self._process.communicate()
        with self._folder:
            if self._process.returncode:
                raise UserError(f"{self._program} makes no MP4: {' '.join(errors.decode(errors='replace').split())[:300]}: use --gif")
            return self._path.read_bytes()

    def _started(self, size: tuple[int, int]) -> "subprocess.Popen[bytes]":
        given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", str(self._fps), "-i", "-"]
        made = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart", "-y", str(self._path)]
        command, pipe = [self._program, "-loglevel", "error", *given, *made], subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe)


def ffmpeg() -> str:
    """Return the path of an ffmpeg.

    Raises:
        UserError: there is none.
    """
    if found := shutil.which("ffmpeg"):
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError:
        raise UserError(
            "an MP4 needs ffmpeg, which is not here: install it, or \"pip install -c constraints.txt -e '.[video]'\", or use --gif"
        ) from None
    return get_ffmpeg_exe()


def _font(size: int, *, is_bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return matplotlib's own font: the same on every machine."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts/ttf" / f"DejaVuSans{'-Bold' * is_bold}.ttf", size)


def _fitting(text: str, size: int, width: float) -> str:
    """Return a text, cut to a width in pixels."""
    font = _font(size, is_bold=True)
    while font.getlength(text) > width and len(text) > 1:
        text = f"{text[:-2]}…"
    return text
