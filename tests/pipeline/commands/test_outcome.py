"""What `matwm repro` says at its end."""

import json
from pathlib import Path

from matwm.params_yaml import read_params
from pipeline.commands.outcome import _results, outcome, recorded
from pipeline.params.segments import resolve_all
from tests.pipeline.projects import Project, tiny_params


def said(project: Project, before: dict) -> list[str]:
    return outcome(project.path, resolve_all(read_params(project.path / "params.yaml"), project.path), before).splitlines()


def test_what_was_trained_and_how_it_plays(made: Project) -> None:
    before = recorded(made.path)
    del before["s01"]
    lines = said(made, before)
    judged = made.json("metrics/s01/evaluation.json")
    scripts = judged["references"]
    learned = [judged["sampled"]["learned_v_random"][f"adversary_{number}"]["mean"] for number in (0, 1)]
    assert lines[:2] == [
        "",
        f"s01: trained from checkpoints/s00/step_000000040, step 40 to 60, fingerprint {made.fingerprint_at(60, 's01')}",
    ]
    (line,) = [line for line in lines if "adversary" in line]
    played = {name: scripts[f"{name}_v_random"]["adversary"]["mean"] for name in ("chase", "chase_lead")}
    best = max(played, key=lambda name: played[name])
    random = scripts["random_v_random"]["adversary"]["mean"]
    assert line.startswith(
        f"s01: adversary against random: {sum(learned) / 2:.2f} learned, {random:.2f} random, {played[best]:.2f} best script ({best}) ("
    )
    assert sum(line.startswith("s01: agent against random: ") for line in lines) == 1
    assert lines[-1] == "next:  matwm tree; matwm ui; matwm continue s01@final --until 120"


def test_where_nothing_was_trained_it_says_so(made: Project) -> None:
    lines = said(made, recorded(made.path))
    assert lines[1] == "nothing was trained"
    assert not any(": trained" in line for line in lines)


def test_plots_are_named_where_some_lie(copied: Project) -> None:
    for folder in ("plots/lineage/s01", "plots/s01", "plots/s00"):
        (copied.path / folder).mkdir(parents=True, exist_ok=True)
    (copied.path / "plots/lineage/s01/evaluation.png").touch()
    assert "plots: plots/lineage/s01" in said(copied, {name: one for name, one in recorded(copied.path).items() if name != "s01"})


def test_a_team_is_compared_with_teams_of_scripts() -> None:
    learned = {"self_play": {f"agent_{number}": {"mean": -18.0 - number} for number in range(3)}}
    references = {
        name: {"agent": {"mean": mean}} for name, mean in (("random", -26.6), ("still", -9.0), ("near", -20.5), ("assignment", -17.25))
    }
    (line,) = _results({"step": 40, "max_steps": 25, "sampled": learned, "references": references}, 40)
    assert line == "agent: -19.00 learned, -26.60 random, -17.25 best script (assignment) (mean return of an agent, sampled)"
    assert not [*_results({"step": 40, "sampled": learned, "references": references}, 80)], "it was trained on since"


def test_an_edited_evaluation_is_no_failure(copied: Project) -> None:
    for text in ('{"step": 60, "sampled": 7, "references": {}}', '{"step": 60, "sampled": {"self_play": {}}}', "[", "{}"):
        (copied.path / "metrics/s01/evaluation.json").write_text(text, encoding="utf-8")
        assert said(copied, {})[-1].startswith("next:  ")


def test_a_whole_repro_ends_with_it_and_a_dry_one_does_not(tmp_path: Path, store_template: Path) -> None:
    project = Project.create(tmp_path / "p", tiny_params(segments={"s00": {"from": "checkpoints/root", "until": 40}}), store_template)
    lines = project.matwm("repro").splitlines()
    assert f"s00: trained from step 0 to 40, fingerprint {project.fingerprint_at(40)}" in lines
    assert any(line.startswith("plots: plots/lineage/s00") for line in lines)
    assert lines[-1] == "next:  matwm tree; matwm ui; matwm continue s00@final --until 80"
    assert "nothing was to be trained" in project.matwm("repro").splitlines()
    assert "nothing was" not in project.matwm("repro", "--dry")
    assert json.loads(project.matwm("runs", "--json"))[0]["segment"] == "s00"
