"""Tables of text: whole in a pipe, as wide as the terminal for a person."""

import io

import pytest
from rich.console import Console

from pipeline.commands.table import drawn, encodable, table
from tests.pipeline.terminal import plain

ROWS = [
    ["run", "state", "changed"],
    ["0123456789ab", "KILLED", "actor_critic.learning_rate 0.001 → 0.0001, world_model.loss_weights.reward 10.0 → 1.0"],
    ["ba9876543210", "FINISHED", "-"],
]


def console(width: int, **environment: str) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard", highlight=False, _environ=environment)


def test_in_a_pipe_a_row_is_one_line_and_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    lines = table(ROWS).splitlines()
    assert lines == ["run           state     changed", f"0123456789ab  KILLED    {ROWS[1][2]}", "ba9876543210  FINISHED  -"]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_on_a_terminal_it_fits_and_nothing_is_lost(width: int) -> None:
    lines = plain(drawn(ROWS, console(width), whole=(0, 1))).splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[:2] for line in lines if line[:1].strip()] == [row[:2] for row in ROWS]
    last = "".join(line[24:].replace(" ", "") for line in lines[1:-1])
    assert last == ROWS[1][2].replace(" ", "")
    assert (len(lines) == 3) == (width == 200)


def test_colours_are_left_out_where_nobody_wants_them() -> None:
    assert "\x1b[33mKILLED" in drawn(ROWS, console(80), whole=())
    assert "\x1b[33m" not in drawn(ROWS, console(80, NO_COLOR="1"), whole=())


def test_what_is_written_commands_no_terminal_and_can_be_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert table([["a"], ["\x1b[2J[red]"]]) == "a\n?[2J[red]\n"
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert encodable("├ é → 1 …\n") == "| ? > 1 ~\n"
    assert table([["→"], ["ü"]]) == ">\n?\n"
