"""`matwm play R@S`: plays episodes with a checkpoint's agents and shows them: as a GIF, an MP4 or in a window."""

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matwm import durable
from matwm.errors import UserError
from pipeline import project as places
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.catalog.references import REFERENCE, REFERENCE_HELP
from pipeline.commands.matchups import AGAINST_HELP, RIVAL, Matchups, Player, matchups, player
from pipeline.commands.table import table

if TYPE_CHECKING:  # Importing torch takes seconds.
    from matwm.envs.scripted import LineUp
    from matwm.evaluation import Result, Scene
    from pipeline.drawing.film import Screen


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", metavar=f"{REFERENCE}|DIR", help=REFERENCE_HELP)
    parser.add_argument("--against", metavar="SCRIPT|RUN@STEP", help=AGAINST_HELP)
    parser.add_argument("--episodes", type=positive, default=1, metavar="N", help="of each match-up (default: 1)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--gif", dest="kind", action="store_const", const="gif", default="gif", help="write a GIF (default)")
    kind.add_argument("--mp4", dest="kind", action="store_const", const="mp4", help="write an MP4, for which ffmpeg is needed")
    kind.add_argument("--window", dest="kind", action="store_const", const="window", help="show a window; Escape or q closes it")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: play.gif or play.mp4; what is there is replaced")
    parser.add_argument("--mode", choices=("sampled", "greedy"), default="sampled", help="how policies act (default: sampled)")
    parser.add_argument("--seed", type=int, default=10000, help="of the first episode (default: 10000)")
    parser.add_argument("--fps", type=rate, default=8.0, metavar="N", help="steps shown in a second (default: 8)")


def run(options: argparse.Namespace) -> int:
    """Play; without --against all agents are the checkpoint's.

    Raises:
        ProjectError: there is no such run or step.
        CheckpointError: one is damaged.
        UserError: nobody can play so in this environment, it cannot draw itself, or there is no ffmpeg or no window here.
    """
    from matwm.envs.base import NoPictureError
    from matwm.envs.output import stdout_aside

    if options.kind == "window" and options.output:
        raise UserError("--output names a file, and --window writes none: leave one of them out")
    project = places.root()
    places.make_importable(project)
    with places.scratch_folder(project) as scratch, stdout_aside():
        checkpoints = Checkpoints(Catalog(project))
        shown = player(options.checkpoint, checkpoints, scratch / "shown")
        seated = matchups(shown, options.against, checkpoints, scratch)
        film = _Film(options, shown, seated)
        try:
            results = [result for line_up in seated.line_ups for result in film.play(line_up)]
        except NoPictureError as error:
            raise UserError(f"there is nothing to see: {error}") from error
        data = film.screen.finish()
    if options.kind != "window":
        output = options.output or Path(f"play.{options.kind}")
        output.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(output, data)
        sys.stdout.write(f"{output}: {film.frames} frames of {film.size[0]} x {film.size[1]}, {len(data):,} bytes\n")
    sys.stdout.write(table([["match-up", "seed", "role", "return", "played by"], *film.rows(results)]))
    return 0


class _Film:
    """Plays match-ups one after the other, each scene a frame."""

    def __init__(self, options: argparse.Namespace, shown: Player, seated: Matchups) -> None:
        self._options, self._shown, self._seated = options, shown, seated
        self.screen: Screen = _screen(options, f"{shown.networks.spec.name}: {shown.label}")
        self.frames, self.size = 0, (0, 0)

    def play(self, line_up: "LineUp") -> "list[Result]":
        """Play the episodes of a match-up; nothing is returned if the window is closed meanwhile."""
        from pipeline.drawing.film import framed

        networks, options = self._shown.networks, self._options
        who = self._players(line_up)

        def watch(scene: "Scene") -> None:
            number = scene.seed - options.seed + 1
            title = f"{networks.spec.name}   episode {number} of {options.episodes}"
            frame = framed(scene, title, who)
            frame = frame if self.size in (frame.size, (0, 0)) else frame.resize(self.size)
            self.frames, self.size = self.frames + 1, frame.size
            self.screen.show(frame, is_last=scene.is_last)

        return self._seated.evaluate(options, [line_up], should_stop=lambda: getattr(self.screen, "is_closed", False), watch=watch)

    def rows(self, results: "list[Result]") -> list[list[str]]:
        """Return what each role got in each episode, for the table."""
        told: list[list[str]] = []
        for line_up, result in zip(self._seated.line_ups, results, strict=False):
            who = self._players(line_up)
            for seed, returns in zip(result.seeds, result.returns, strict=True):
                for role, numbers in result.spec.roles().items():
                    told.append([result.matchup, str(seed), role, f"{returns[numbers].mean():.2f}", who[role]])
        return told

    def _players(self, line_up: "LineUp") -> Mapping[str, str]:
        """Return who plays each role."""
        from matwm.envs.scripted import sides

        roles, networks = self._shown.networks.spec.roles(), self._shown.networks
        names: dict[str | None, Any] = {None: self._shown.label, RIVAL: self._seated.rival and self._seated.rival.label}
        played = dict.fromkeys(roles, self._shown.label)
        for side, tactic in zip(sides(networks.env), line_up.tactics, strict=True):
            played |= {role: names.get(tactic, tactic) for role in (roles if side.roles is None else side.roles) if role in roles}
        return played


def _screen(options: argparse.Namespace, title: str) -> "Screen":
    from pipeline.drawing import film, window

    if options.kind == "window":
        return window.Window(options.fps, title)
    return film.Gif(options.fps) if options.kind == "gif" else film.Mp4(options.fps)


def positive(text: str) -> int:
    """Read a number of episodes or steps."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def rate(text: str) -> float:
    """Read a number of frames a second."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0.1 to 100")
    return value
