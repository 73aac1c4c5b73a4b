"""`matwm play`: episodes as GIFs, MP4s and in windows, with who plays what and what it gets."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matwm.evaluation import Scene
from matwm.types import EnvSpec
from pipeline.drawing import film
from pipeline.drawing.window import Window
from tests.matwm.arena import Arena
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import Project
from tests.pipeline.untrained import untrained

SPEC = EnvSpec("toy", ("wolf_0", "wolf_1", "sheep_0"), (1, 1, 1), (2, 2, 2), max_steps=40)
STEPS = 12
"""Of each episode of the lineage's scenario."""


def scene(returns: list[float], picture: tuple[int, int] = (70, 70)) -> Scene:
    return Scene(SPEC, 7, 3, np.full((*picture, 3), 200, np.uint8), np.array(returns, float), is_last=False)


def rows_that_differ(one: Image.Image, other: Image.Image) -> list[int]:
    return np.flatnonzero((np.asarray(one) != np.asarray(other)).any((1, 2))).tolist()


def test_each_match_up_is_played_into_one_gif(made: Project, matwm_in: Matwm, tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "some.gif"
    command = ("play", "s00@20", "--against", "s02@60", "--episodes", "2", "--output", str(target))
    code, output, errors = matwm_in(made, *command)
    assert (code, errors) == (0, "")
    first, _, *rows = output.splitlines()
    data = target.read_bytes()
    assert first == f"{target}: {4 * (STEPS + 1)} frames of 720 x 720, {len(data):,} bytes"
    assert [line.split()[:3] + line.split()[4:] for line in rows] == [
        [matchup, seed, role, who[role]]
        for matchup, who in (
            ("learned_v_rival", {"adversary": "s00@20", "agent": "s02@60"}),
            ("rival_v_learned", {"adversary": "s02@60", "agent": "s00@20"}),
        )
        for seed in ("10000", "10001")
        for role in ("adversary", "agent")
    ]
    with Image.open(io.BytesIO(data)) as gif:
        assert (gif.format, gif.size) == ("GIF", (720, 720))
        durations = []
        for number in range(getattr(gif, "n_frames", 1)):
            gif.seek(number)
            durations.append(gif.info["duration"])
    assert [number for number, duration in enumerate(durations) if duration > 1000] == [12, 25, 38, 51], "the ends of four episodes"
    assert matwm_in(made, *command)[1] == output
    assert target.read_bytes() == data


def test_a_frame_says_who_plays_which_role_and_what_it_has_got() -> None:
    who = {"wolf": "s00@20", "sheep": "flee"}
    frame = film.framed(scene([1.0, 2.0, -3.0]), "a title", who)
    assert frame.size == (720, 720)
    line = [range(film.MARGIN + row * film.LINE, film.MARGIN + (row + 1) * film.LINE) for row in range(3)]
    for row, other in enumerate(
        (
            film.framed(scene([1.0, 2.0, -3.0]), "another title", who),
            film.framed(scene([1.0, 2.5, -3.0]), "a title", who),
            film.framed(scene([1.0, 2.0, -3.0]), "a title", {**who, "sheep": "random"}),
        )
    ):
        differ = rows_that_differ(frame, other)
        assert differ and set(differ) <= set(line[row]), row


def test_a_wide_picture_makes_a_wide_frame_of_even_width() -> None:
    who = {"wolf": "x", "sheep": "y"}
    assert film.framed(scene([0.0] * 3, (560, 881)), "a", who).size[1] == film.HEIGHT
    widths = [film.framed(scene([0.0] * 3, (100, wide)), "a", who).width for wide in (131, 132, 181, 5000)]
    assert (widths[0], widths[3]) == (774, film.MOST_WIDTH)
    assert not any(width % 2 for width in widths)


def test_an_mp4_has_every_frame(made: Project, matwm_in: Matwm, tmp_path: Path) -> None:
    target = tmp_path / "some.mp4"
    assert matwm_in(made, "play", "s00@20", "--mp4", "--fps", "4", "--output", str(target))[0] == 0
    probe = subprocess.run([film.ffmpeg(), "-i", str(target), "-f", "null", "-"], capture_output=True, text=True, check=True)
    assert "h264" in probe.stderr and "720x720" in probe.stderr
    assert f"frame={STEPS + 1 + 6:5}" in probe.stderr, "the last one is there for 1.5 s more"


def test_without_ffmpeg_a_sentence_says_so_before_anything_is_played(
    made: Project, matwm_in: Matwm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "some.mp4"
    monkeypatch.setattr(film.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    code, output, errors = matwm_in(made, "play", "s00@20", "--mp4", "--output", str(target))
    assert (code, output, errors[:19]) == (1, "", "an MP4 needs ffmpeg")
    assert not target.exists()


def test_what_ffmpeg_refuses_is_a_sentence() -> None:
    screen = film.Mp4(8)
    with pytest.raises(film.UserError, match="makes no MP4"):
        screen.show(Image.new("RGB", (7, 7)), is_last=True)  # of odd size
        screen.finish()


def test_a_window_shows_episodes_and_closes(made: Project, matwm_in: Matwm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    code, output, _ = matwm_in(made, "play", "s00@20", "--window", "--fps", "100")
    assert (code, len(output.splitlines())) == (0, 3)
    import pygame

    window = Window(100, "a title")
    window.show(Image.new("RGB", (40, 30), "red"), is_last=False)
    assert (pygame.display.get_surface().get_size(), window.is_closed) == ((40, 30), False)
    assert pygame.display.get_surface().get_at((3, 3))[:3] == (255, 0, 0)
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_q))
    window.show(Image.new("RGB", (40, 30), "blue"), is_last=True)
    assert window.is_closed
    window.finish()
    assert not pygame.display.get_init()


def test_without_a_display_no_window_is_a_sentence(made: Project, matwm_in: Matwm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "no such driver")
    code, output, errors = matwm_in(made, "play", "s00@20", "--window")
    assert (code, output) == (1, "")
    assert errors.startswith("no window can be opened here (") and errors.endswith("): use --gif or --mp4\n")


def test_an_environment_that_cannot_draw_itself_is_a_sentence(
    made: Project, matwm_in: Matwm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = untrained(tmp_path / "arena", "tests.matwm.arena:Arena", {"max_cycles": 4})
    target = tmp_path / "some.gif"
    command = ("play", str(checkpoint.path), "--output", str(target))
    code, output, _ = matwm_in(made, *command)
    assert (code, output.split()[0]) == (0, f"{target}:")
    target.unlink()
    monkeypatch.setattr(Arena, "render", lambda self: None)
    code, output, errors = matwm_in(made, *command)
    assert (code, output) == (1, "")
    assert errors.startswith("there is nothing to see: tests.matwm.arena:Arena cannot draw itself")
    assert not target.exists()


def test_a_window_writes_no_file(made: Project, matwm_in: Matwm) -> None:
    code, _, errors = matwm_in(made, "play", "s00@20", "--window", "--output", "x.gif")
    assert (code, errors) == (1, "--output names a file, and --window writes none: leave one of them out\n")
