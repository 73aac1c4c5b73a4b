"""The tables of learning say what the result files say."""

import json
import re

import numpy as np
import pytest

from benchmarks import learning
from benchmarks.learn import diagnosis_table, figures, files, inside, report
from benchmarks.learn.measures import ABLATIONS, TASKS
from matwm.envs.scripted import references
from matwm.errors import UserError
from matwm.evaluation import matchup_name
from matwm.params_yaml import load_config, preset_path

README = learning.REPOSITORY / "README.md"
PAGE = learning.REPOSITORY / "docs" / "results.md"


def rows(matchup, role, sampled, greedy):
    return [
        {"mode": mode, "matchup": matchup, "role": role, "mean": mean, "stderr": 0.1, "median": mean, "episodes": 200}
        for mode, mean in (("sampled", sampled), ("greedy", greedy))
    ]


def put(results, name, scenario, seed, evaluation, *, steps=50_000, changes=None, minutes=20, config=None, **others):
    curve = {"10000": [{**row, "mean": row["mean"] - 5} for row in evaluation if row["mode"] == "sampled" and "mean" in row]}
    result = {"name": name, "scenario": scenario, "seed": seed, "steps": steps, "cpu_seconds": 60.0 * minutes, "curve": curve}
    result |= {"judging_cpu_seconds": 180.0, "preset": TASKS[scenario].preset, "numerics": 1, "judging": {"episodes": 200}}
    role = evaluation[0]["role"]
    keys = [f"world_model/{key}" for key in ("reward", "reward_marginal", "reconstruction_rmse")]
    keys += [f"agents/{role}/{key}" for key in ("reward_imagined", "reward_real", "entropy_share")]
    result["training"] = {"step": [steps / 2, steps], **{key: [None, 1.0] for key in keys}}
    result["diagnosis"] = {role: {"value: mean": 2.0 * seed, "reward over 15 steps: real": 1.5}, "world_model": {"reward": 0.25}}
    result |= {"changes": changes or {}, "evaluation": evaluation, "config": {"seed": seed, **(config or {})}} | others
    files.write(results / name / scenario / f"seed_{seed}.json", result)


@pytest.fixture
def readme(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n", encoding="utf-8")
    return path


def test_the_table_shows_each_measure_with_each_seed(tmp_path, readme):
    results = tmp_path / "results"
    for seed, value in ((1, -17.0), (2, -18.0), (10, -16.0)):
        evaluation = [{**row, "stderr": 0.7} for row in rows("self_play", "agent", value, value + 0.5)]  # (1 / 3 + 0.7**2) ** 0.5 is 0.91
        put(results, "final", "simple_spread_v3", seed, evaluation, minutes=10 * min(seed, 2))
    tag = rows("learned_v_random", "adversary", 20.0, 19.0) + rows("chase_v_learned", "agent", -25.0, -26.0)
    put(results, "final", "simple_tag_v3", 1, tag)
    put(results, "no_recency", "simple_spread_v3", 1, rows("self_play", "agent", -20.0, -21.0), changes={"replay.recency_decay": 1.0})
    put(results, "final", "simple_reference_v3", 1, rows("self_play", "agent", -20.0, -21.0), steps=1000)
    assert "5 final" in report.write(results, readme, tmp_path)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n\n") and text.endswith("\n\nafter\n") and "\nold\n" not in text
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    table = {line[0]: line[1:] for line in lines}
    spread = [
        "−26.6",
        "−16.4; −8.3",
        "−21.4",
        "−13.5",
        "**−17.0** ± 0.9 (−17.0, −18.0, −16.0)",
        "**−16.5** ± 0.9 (−16.5, −17.5, −15.5)",
        "3",
        "17",
        "3",
    ]
    assert table["Simple Spread: each agent"] == spread
    assert table["Simple Tag: adversary, random prey"][4:] == ["**20.0** ± 0.1", "**19.0** ± 0.1", "1", "20", "3"]
    assert table["Simple Tag: prey, random adversaries"][4:7] == ["–", "–", "1"]
    assert table["Simple Spread without recency priority"][4] == "**−20.0** ± 0.1"
    assert "Simple Reference: each agent, 1,000 steps" in table
    assert not any("Speaker" in label or "teammate" in label for label in table)
    assert {path.name for path in tmp_path.glob("*.png")} == {"learning.png", "learning_inside.png", "learning_ablations.png"}
    assert report.section_in(text) == report.section(results)


def test_battles_and_images_have_a_table_of_their_own_with_win_rates_in_per_cent(tmp_path, readme):
    won = [{"metric": "win", **{key: value for key, value in row.items() if key != "role"}} for row in rows("self_play", "ally", 0.31, 0.4)]
    returns = rows("self_play", "ally", 1.1, 1.2)
    put(tmp_path, "final", "3m", 1, [*returns, *won], preset="smax-easy")
    put(tmp_path, "final", "pistonball_v6", 2, rows("self_play", "piston", 80.0, 81.0), preset="image-small", steps=30_000)
    shown = report.section(tmp_path)
    table = {line.split(" | ")[0]: line.strip("| ").split(" | ")[1:] for line in shown.splitlines() if line.startswith("|")}
    assert table["| SMAX 3m (`smax-easy`): battles won"] == ["0 %", "48 %", "**31 %** ± 10 %", "**40 %** ± 10 %", "1", "20", "3"]
    assert table["| Pistonball (`image-small`): each of 5 pistons, from images, 30,000 steps"][2] == "**80.0** ± 0.1"
    assert "MAPPO" not in shown and "SMAX is not StarCraft II" in shown
    put(tmp_path, "final", "simple_reference_v3", 1, rows("self_play", "agent", -20.0, -21.0))
    assert report.section(tmp_path).index("MAPPO") < report.section(tmp_path).index("SMAX 3m")
    report.write(tmp_path, readme, tmp_path)
    assert report.section_in(readme.read_text(encoding="utf-8")) == report.section(tmp_path)


def test_what_diagnoses_found_stands_beside_the_results_as_means_over_seeds(tmp_path, readme):
    for seed in (1, 2):
        put(tmp_path, "final", "simple_spread_v3", seed, rows("self_play", "agent", -20.0, -21.0))
    put(tmp_path, "final", "pistonball_v6", 1, rows("self_play", "piston", 80.0, 81.0), preset="image-small", diagnosis="none: images")
    changes = {"replay.recency_decay": 1.0}
    put(tmp_path, "no_recency", "simple_spread_v3", 3, rows("self_play", "agent", -20.0, -21.0), changes=changes)
    report.write(tmp_path, readme, tmp_path)
    shown = (tmp_path / report.DIAGNOSES).read_text(encoding="utf-8")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines() if line.startswith("|")]
    heads = [line for line in lines if line[1] == "seeds"]
    table = {line[0]: dict(zip(head, line, strict=True)) for head in heads for line in lines if len(line) == len(head) and line != head}
    assert table["Simple Spread: agent"]["value"] == "3.00" and table["Simple Spread: agent"]["seeds"] == "2"
    assert table["Simple Spread: agent"]["… real"] == "1.50" and table["Simple Spread: agent"]["entropy / ln A"] == "–"
    assert table["Simple Spread without recency priority: agent"]["value"] == "6.00"
    assert table["Simple Spread"]["reward, cross-entropy"] == "0.25"
    assert "Pistonball" not in shown


def test_a_curve_is_of_its_own_episodes_alone():
    (measure,) = TASKS["3m"].measures
    won = {"mode": "sampled", "matchup": "self_play", "metric": "win", "mean": 0.25}
    earned = {"mode": "sampled", "matchup": "self_play", "role": "ally", "mean": 1.5}
    run = {"steps": 200, "curve": {"100": [earned, won], "200": [{**won, "mean": 0.5}]}, "evaluation": [{**won, "mean": 1.0}]}
    assert dict(figures.points(run, measure)) == {100: 0.25, 200: 0.5}


def test_words_are_drawn_of_the_results_that_have_them(tmp_path, readme):
    def of_words(mode, counts, share, followed):
        names = {"speaker": "speaker_0", "listener": "listener_0", "goals": ["red", "green", "blue"], "words": counts}
        swapped = {"swapped_reached": 0.3, "swapped_followed": followed, "swapped_return": -30.0, "swapped_return_stderr": 1.0}
        shares = {"information": 0.5, "information_share": share, "reached": 0.9}
        return {"mode": mode, "matchup": "self_play", **names, **shares, **swapped, "episodes": 200}

    put(tmp_path, "final", "simple_speaker_listener_v4", 1, rows("self_play", "listener", -20.0, -21.0))
    report.write(tmp_path, readme, tmp_path)
    assert "learning_words" not in readme.read_text(encoding="utf-8") and not list(tmp_path.glob("learning_words*"))
    last = [of_words("greedy", [[0] * 3] * 3, None, 0.0), of_words("sampled", [[0, 8, 0], [0, 0, 0], [6, 0, 2]], 0.75, 0.7)]
    judged = [*rows("self_play", "listener", -8.0, -7.0), *last]
    curve = {str(step): [judged[0], of_words("sampled", [[1, 1, 0]] * 3, None, 0.1)] for step in (10_000, 50_000)}
    put(tmp_path, "final", "simple_speaker_listener_v4", 2, judged, config={"seed": 2}, curve=curve)
    assert "2 final" in report.write(tmp_path, readme, tmp_path)
    picture = "learning_words_simple_speaker_listener_v4.png"
    assert f"![Words by goals over training, Simple Speaker Listener, sampled]({picture})" in report.section(tmp_path)
    assert [path.name for path in tmp_path.glob("learning_words*")] == [picture]
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    (speaker,) = figures.speakers(report.read_all(tmp_path)["final"]["simple_speaker_listener_v4"])
    assert speaker.label == "seed 2: speaker_0"
    first, final = speaker.moments
    assert (first.step, final.step, final.information_share, final.followed) == (10_000, 50_000, 0.75, 0.7)
    assert first.information_share != first.information_share, "nobody knows a share where all episodes had one goal"
    np.testing.assert_array_equal(final.shares, [[0, 1, 0], [np.nan] * 3, [0.75, 0, 0.25]])


def test_without_results_everything_stays_as_it_is(tmp_path, readme, capsys):
    before = readme.read_text(encoding="utf-8")
    for results in ("none", "final"):
        put(tmp_path, "no_recency", "simple_spread_v3", 1, rows("self_play", "agent", -20.0, -21.0), changes={"replay.recency_decay": 1.0})
        words = ["--page", str(readme), "--readme", str(readme), "--docs", str(tmp_path), "--results", str(tmp_path / results)]
        assert learning.main(["report", *words]) == 1
        error = capsys.readouterr().err
        assert "holds no result final/SCENARIO/seed_N.json" in error and error.count("\n") == 1
    assert readme.read_text(encoding="utf-8") == before
    assert not list(tmp_path.glob("*.png")) + list(tmp_path.rglob(report.DIAGNOSES))


def test_a_result_in_the_wrong_place_is_refused(tmp_path):
    put(tmp_path, "final", "simple_spread_v3", 1, rows("self_play", "agent", -20.0, -21.0))
    folder = tmp_path / "final/simple_spread_v3"
    (folder / "seed_1.json").rename(folder / "seed_2.json")
    with pytest.raises(UserError, match=r"seed_2.json holds the result of final/simple_spread_v3 seed 1"):
        report.section(tmp_path)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_without_its_change_is_refused(tmp_path, name):
    put(tmp_path, name, "simple_spread_v3", 1, rows("self_play", "agent", -20.0, -21.0), changes={"seed": 1})
    with pytest.raises(UserError, match=r"is a result without .* expected"):
        report.section(tmp_path)


def test_an_ablation_that_differs_in_something_else_is_refused(tmp_path):
    evaluation = rows("self_play", "agent", -20.0, -21.0)
    put(tmp_path, "final", "simple_spread_v3", 1, evaluation, config={"replay": {"recency_decay": 0.9998, "capacity": 50}})
    changes = {"replay.recency_decay": 1.0}
    put(
        tmp_path,
        "no_recency",
        "simple_spread_v3",
        2,
        evaluation,
        changes=changes,
        config={"replay": {"recency_decay": 1.0, "capacity": 50}},
    )
    assert "Simple Spread without recency priority" in report.section(tmp_path)
    put(
        tmp_path,
        "no_recency",
        "simple_spread_v3",
        2,
        evaluation,
        changes=changes,
        config={"replay": {"recency_decay": 1.0, "capacity": 60}},
    )
    with pytest.raises(UserError, match=r"seed 2 is to be final without recency priority, but there replay.capacity was 50 and is 60"):
        report.section(tmp_path)


@pytest.mark.parametrize(
    ("name", "other", "sentence"),
    [
        ("final", {"numerics": 2}, "seed 2 is to be as seed 1, but there numerics was 1 and is 2 now"),
        ("final", {"steps": 1000}, "steps was 50000 and is 1000"),
        ("final", {"judging": {"episodes": 100}}, "judging.episodes was 200 and is 100"),
        ("final", {"config": {"replay": {"capacity": 60}}}, "replay.capacity was 50 and is 60"),
        ("final", {"preset": "paper"}, "is a result of preset paper, but the table is about cpu-small"),
        ("final", {"changes": {"replay.capacity": 50}}, "with replay.capacity changed, but the table is about cpu-small as it is"),
        ("no_recency", {"numerics": 2}, "no_recency/simple_spread_v3 seed 2 is to be as seed 1, but there numerics"),
        ("no_recency", {"preset": "paper"}, "is a result of preset paper"),
    ],
)
def test_seeds_of_one_row_that_differ_are_refused(tmp_path, name, other, sentence):
    usual = {"config": {"replay": {"capacity": 50}}, "changes": {} if name == "final" else {"replay.recency_decay": 1.0}}
    evaluation = rows("self_play", "agent", -20.0, -21.0)
    put(tmp_path, name, "simple_spread_v3", 1, evaluation, **usual)
    put(tmp_path, name, "simple_spread_v3", 3, evaluation, **usual)
    assert "Simple Spread" in report.section(tmp_path)
    put(tmp_path, name, "simple_spread_v3", 2, evaluation, **usual | other)
    with pytest.raises(UserError, match=sentence):
        report.section(tmp_path)


@pytest.mark.parametrize("key", [*report.COMPARABLE, *report.KEYS])
def test_a_result_that_does_not_say_all_is_refused(tmp_path, capsys, key):
    put(tmp_path, "final", "simple_spread_v3", 1, rows("self_play", "agent", -20.0, -21.0))
    file = tmp_path / "final/simple_spread_v3/seed_1.json"
    file.write_text(json.dumps({name: value for name, value in files.read(file).items() if name != key}), encoding="utf-8")
    with pytest.raises(UserError, match=rf"seed_1.json does not say {key}"):
        report.section(tmp_path)
    assert learning.main(["show", "--work", str(tmp_path / "work"), "--results", str(tmp_path)]) == 1
    assert f"seed_1.json does not say {key}" in capsys.readouterr().err


def test_every_role_has_a_curve_of_what_training_knew(tmp_path):
    put(tmp_path, "final", "simple_spread_v3", 1, rows("self_play", "agent", -20.0, -21.0))
    run = files.read(tmp_path / "final/simple_spread_v3/seed_1.json")
    keys = ("reward_imagined", "reward_real", "entropy_share")
    run["training"] |= {f"agents/role{number}/{key}": [None, 1.0] for number in range(4) for key in keys}
    figure = inside.figure("", {"simple_spread_v3": {1: run}})
    *_, entropies = (axes for axes in figure.axes if axes.get_visible())
    shown = {text.get_text() for text in entropies.get_legend().get_texts()}
    assert shown == {"agent", "role0", "role1", "role2", "role3"}


def test_no_chaser_of_simple_tag_is_left_out_of_the_table():
    env = load_config(preset_path("simple-tag")).env
    names = {matchup_name(line_up) for line_up in references(env)}
    for measure in TASKS["simple_tag_v3"].measures:
        if measure.role == "adversary":
            prey = measure.matchup.removeprefix("learned_v_")
            assert len(measure.scripts) == len([name for name in names if name.startswith("chase") and name.endswith(f"_v_{prey}")])


def test_what_scripts_get_is_printed(capsys):
    assert learning.main(["references", "--scenario", "simple_spread_v3", "--episodes", "2"]) == 0
    assert re.search(r"^random  agent: -\d+\.\d{3} ± \d+\.\d{3}$", capsys.readouterr().out, re.MULTILINE)


def test_a_broken_result_is_named(tmp_path):
    put(tmp_path, "final", "simple_spread_v3", 1, rows("self_play", "agent", -20.0, -21.0))
    file = tmp_path / "final/simple_spread_v3/seed_1.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")))[:-3], encoding="utf-8")
    with pytest.raises(UserError, match=r"seed_1.json is no JSON"):
        report.section(tmp_path)


def test_the_readme_has_the_first_rows_that_there_are_results_for(tmp_path, readme):
    page = tmp_path / "page.md"
    page.write_text(readme.read_text(encoding="utf-8"), encoding="utf-8")
    results = tmp_path / "results"
    for seed, value in ((1, -17.0), (2, -18.0)):
        put(results, "final", "simple_spread_v3", seed, rows("self_play", "agent", value, value + 0.5))
    put(results, "final", "simple_tag_v3", 1, rows("learned_v_random", "adversary", 20.0, 19.0), steps=1000)
    report.write(results, page, tmp_path, readme)
    cells = [line.strip("| ").split(" | ") for line in report.section_in(readme.read_text(encoding="utf-8")).splitlines()[2:]]
    assert cells[0] == ["Simple Spread: each agent", "−26.6", "−16.4; −8.3", "**−17.5** ± 0.5", "**−17.0** ± 0.5", "2"]
    assert cells[1] == ["Simple Tag: adversary, random prey, 1,000 steps", "4.2", "45.7; 60.3", "**20.0** ± 0.1", "**19.0** ± 0.1", "1"]
    assert len(report.summary(learning.RESULTS).splitlines()) == 2 + report.SUMMARY_ROWS


def test_a_readme_without_the_marks_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("nothing", encoding="utf-8")
    with pytest.raises(UserError, match="lacks"):
        report.write(tmp_path, tmp_path / "README.md", tmp_path)


def test_a_readme_that_is_not_there_is_named_in_one_sentence(tmp_path, capsys):
    assert learning.main(["report", "--page", str(tmp_path / "NONE.md"), "--results", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "NONE.md" in error and error.count("\n") == 1


def test_ctrl_c_ends_a_command_without_a_traceback(monkeypatch):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "references", interrupted)
    assert learning.main(["references", "--scenario", "simple_spread_v3"]) == 130


def test_the_documents_show_the_committed_results():
    for file, make in ((PAGE, report.section), (README, report.summary)):
        shown = report.section_in(file.read_text(encoding="utf-8"))
        assert shown == make(learning.RESULTS), "run `.venv/bin/python benchmarks/learning.py report`"
    diagnoses = (learning.RESULTS / report.DIAGNOSES).read_text(encoding="utf-8")
    assert diagnoses == diagnosis_table.document(report.read_all(learning.RESULTS))
