"""A learning job that is killed and given again ends as if nothing had happened."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fixed_play, learning
from benchmarks.learn import figures, files
from benchmarks.learn.diagnosis import IMAGES
from benchmarks.learn.job import Job, JobError, rows_of
from benchmarks.learn.measures import ABLATIONS, TASKS
from benchmarks.learn.plan import Judging, make_plan
from matwm.errors import run_program
from matwm.evaluation import Result
from matwm.store import LocalStore
from matwm.types import EnvSpec
from matwm.version import NUMERICS

SCRIPT = Path(learning.__file__)
TINY = [
    "world_model.latents=4",
    "world_model.hidden_size=16",
    "world_model.encoder_width=16",
    "schedule.warmup_steps=60",
    "world_model.window_length=8",
    "env.options.max_cycles=9",
]
STEPS, SEED, SAVE_EVERY = 180, 5, 20
JUDGING = Judging(episodes=3, every=60, curve_episodes=2)
COSTS = {"cpu_seconds", "judging_cpu_seconds", "peak_bytes", "code"}


def tiny_plan(*more, steps=STEPS, name="tiny"):
    return make_plan(name, "ci-tiny", "simple_spread_v3", SEED, steps, [*TINY, *more], JUDGING)


def tiny_job(folder, *more, steps=STEPS):
    return Job(tiny_plan(*more, steps=steps), folder / "work", folder / "results", save_every=SAVE_EVERY, say=lambda _: None)


def command(folder):
    words = [word for change in TINY for word in ("--set", change)]
    words += ["--name", "tiny", "--preset", "ci-tiny", "--scenario", "simple_spread_v3", "--seeds", str(SEED), "--steps", str(STEPS)]
    words += ["--episodes", "3", "--evaluate-every", "60", "--evaluate-episodes", "2", "--save-every", str(SAVE_EVERY)]
    return [sys.executable, str(SCRIPT), "train", *words, "--work", str(folder / "work"), "--results", str(folder / "results")]


def without_costs(result):
    return {key: value for key, value in result.items() if key not in COSTS}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    job = tiny_job(tmp_path_factory.mktemp("undisturbed"))
    assert job.run(lambda: False)
    return job


def wait_until(is_so, process):
    end = time.monotonic() + 600
    while not is_so():
        assert process.poll() is None, "the job ended too early"
        assert time.monotonic() < end, "the job has saved nothing"
        time.sleep(0.005)


HALTS_IN_A_SAVE = """
import os, runpy, signal, sys
from matwm import durable
_, number, file, *sys.argv = sys.argv
write, saves = durable.write, [0]
def halting(path, data):
    saves[-1] += 1
    if (len(saves), saves[-1]) == (int(number), int(file)):
        os.kill(os.getpid(), signal.SIGSTOP)
    if path.name == "manifest.json":
        saves.append(0)
    return write(path, data)
durable.write = halting
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def kill_on_the_way(folder, seed):
    """Start the job's own process and kill it at a random file of a random checkpoint after its third."""
    rng = np.random.default_rng(seed)
    where = [str(rng.integers(4, STEPS // SAVE_EVERY)), str(rng.integers(1, 9))]
    python, *words = command(folder)
    words = [python, "-c", HALTS_IN_A_SAVE, *where, *words, "--parent", str(os.getpid())]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=learning.REPOSITORY)
    try:
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1]), where
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL


def test_a_killed_job_given_again_ends_with_the_same_result(tmp_path, undisturbed):
    kill_on_the_way(tmp_path, time.time_ns())
    assert not list((tmp_path / "results").rglob("*.json"))
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "goes on from step" in done.stdout
    result = files.read(tmp_path / "results/tiny/simple_spread_v3" / f"seed_{SEED}.json")
    assert without_costs(result) == without_costs(files.read(undisturbed.result_file))


def test_jobs_side_by_side_that_get_sigterm_save_and_are_gone(tmp_path):
    words = [*command(tmp_path), "--seeds", "5", "6", "7", "--steps", "100000", "--jobs", "2"]  # the last --seeds and --steps count
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    folders = [tmp_path / "work/tiny/simple_spread_v3" / f"seed_{seed}" for seed in (5, 6, 7)]
    try:
        wait_until(lambda: all(list(folder.glob("step_*/manifest.json")) for folder in folders[:2]), process)
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=600)  # the jobs' end, too: they hold the pipe
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    stopped = dict(re.findall(r"seed (\d+): stopped at step (\d+); the same command goes on", told))
    assert sorted(stopped) == ["5", "6"] and not folders[2].exists()
    assert all(LocalStore(folders[int(seed) - 5]).newest().step == int(step) for seed, step in stopped.items())
    assert not list((tmp_path / "results").rglob("*.json"))


def test_a_job_that_is_asked_to_stop_saves_that_very_step_and_goes_on_from_there(tmp_path, undisturbed):
    answers = iter([False] * 70)
    job = tiny_job(tmp_path)
    assert not job.run(lambda: next(answers, True))
    stopped_at = max(int(path.name.removeprefix("step_")) for path in job.folder.glob("step_*"))
    assert 0 < stopped_at < STEPS and stopped_at % SAVE_EVERY
    again = tiny_job(tmp_path)
    assert again.run(lambda: False)
    result, expected = files.read(again.result_file), files.read(undisturbed.result_file)
    assert without_costs(result) == without_costs(expected)
    assert result["cpu_seconds"] > 0


def test_the_result_says_what_it_is_of(undisturbed):
    result = files.read(undisturbed.result_file)
    assert result["changes"] == {"env.options.max_cycles": 9, **{k: int(v) for k, v in (w.split("=") for w in TINY[:-1])}}
    assert (result["steps"], result["seed"], result["preset"]) == (STEPS, SEED, "ci-tiny")
    assert {(row["mode"], row["matchup"], row["role"], row["episodes"]) for row in result["evaluation"]} == {
        (mode, "self_play", "agent", 3) for mode in ("sampled", "greedy")
    }
    assert list(result["curve"]) == ["60", "120", "180"]
    training = result["training"]
    assert {len(values) for values in training.values()} == {40}
    episodes = [(step, value) for step, value in zip(training["step"], training["episode/return/agent"], strict=False) if value is not None]
    assert len(episodes) >= 18
    assert any(value is not None for value in training["agents/agent/entropy"])
    assert result["diagnosis"]["agent"]["entropy / ln A"] > 0.5
    assert undisturbed.result_file.stat().st_size < 60_000


def test_what_the_environment_says_of_episodes_is_judged_too():
    spec = EnvSpec("battle", ("ally_0", "ally_1"), (1, 1), (2, 2))
    returns, actions = np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros((2, 1, 2), np.int64)
    result = Result("self_play", "sampled", (0, 1), spec, (0, 1), returns, actions, {"win": np.array([0.0, 1.0])})
    usual = {"mode": "sampled", "matchup": "self_play", "episodes": 2}
    assert rows_of(result) == [
        {**usual, "role": "ally", "mean": 2.5, "stderr": 1.0, "median": 2.5},
        {**usual, "metric": "win", "mean": 0.5, "stderr": 0.5, "median": 0.5},
    ]
    (measure,) = TASKS["3m"].measures
    assert [measure.is_of(row) for row in rows_of(result)] == [False, True]


def test_what_agents_say_is_recorded_in_curve_and_result(tmp_path, capsys):
    plan = make_plan("tiny", "ci-tiny", "simple_speaker_listener_v4", SEED, 80, TINY, Judging(episodes=5, every=40, curve_episodes=4))
    said = []
    job = Job(plan, tmp_path / "work", tmp_path / "results", save_every=40, say=said.append)
    assert job.run(lambda: False)
    assert any("speaker_0's words" in line and "nats" in line for line in said)
    result = files.read(job.result_file)
    assert not any("words" in key for key in result["training"])
    spoken = figures.spoken(result)
    assert [(step, row["episodes"], row["mode"]) for step, row in spoken["speaker_0"]] == [(40, 4, "sampled"), (80, 5, "sampled")]
    assert [sum(map(sum, row["words"])) for _, row in spoken["speaker_0"]] == [4 * 9, 5 * 9]
    rows = [row for row in result["evaluation"] if "speaker" in row]
    assert [row["mode"] for row in rows] == ["sampled", "greedy"]
    assert {*rows[0]} == {
        *("mode", "matchup", "speaker", "listener", "goals", "words", "information", "information_share", "reached"),
        *("swapped_reached", "swapped_followed", "swapped_return", "swapped_return_stderr", "episodes"),
    }
    assert learning.main(["show", "--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "80: sampled −" in line, "the table's rows are found beside those of words"


def test_a_preset_of_images_is_trained_with_its_own_options_and_not_diagnosed(tmp_path):
    pytest.importorskip("pymunk")
    plan = make_plan("tiny", "image-small", "pistonball_v6", 1, 4, ["env.options.max_cycles=2"], Judging(2, 4, 2))
    assert plan.config.env.options["n_pistons"] == 5
    job = Job(plan, tmp_path / "work", tmp_path / "results", save_every=4, say=lambda _: None)
    assert job.run(lambda: False)
    result = files.read(job.result_file)
    assert result["diagnosis"] == IMAGES
    assert {row["role"] for row in result["evaluation"]} == {"piston"} and list(result["curve"]) == ["4"]


def test_another_configuration_is_refused_in_one_sentence(tmp_path, undisturbed):
    with pytest.raises(
        JobError, match=rf"finished with seed {SEED} otherwise: world_model.classes was 8 and is 6 now: give another --name"
    ):
        tiny_job(undisturbed.result_file.parents[3], "world_model.classes=6").is_finished()
    with pytest.raises(JobError, match=rf"seed 6: finished with seed {SEED} otherwise: world_model.classes"):
        plan = make_plan("tiny", "ci-tiny", "simple_spread_v3", 6, STEPS, [*TINY, "world_model.classes=6"], JUDGING)
        Job(plan, tmp_path, undisturbed.result_file.parents[2], save_every=20, say=lambda _: None).is_finished()
    begun = tiny_job(tmp_path)
    begun.run(lambda: True)
    with pytest.raises(JobError, match=rf"begun with seed {SEED} otherwise: steps was 180 and is 300 now"):
        tiny_job(tmp_path, steps=300).run(lambda: True)
    with pytest.raises(JobError, match=rf"seed 6: begun with seed {SEED} otherwise: world_model.classes"):
        Job(plan, tmp_path / "work", tmp_path / "results", save_every=20, say=lambda _: None).run(lambda: True)
    assert not (tmp_path / "work" / plan.place).exists()


def test_work_that_does_not_say_what_it_is_is_refused(tmp_path):
    job = tiny_job(tmp_path)
    files.write(job.folder.with_name("seed_4") / "progress.json", {})
    with pytest.raises(JobError, match=r"seed_4/progress.json does not say what was begun: remove .*seed_4"):
        job.run(lambda: False)
    assert not job.folder.exists()


def test_a_checkpoint_before_the_first_episode_has_ended_says_so(tmp_path):
    said = []
    Job(tiny_plan(steps=10), tmp_path, tmp_path / "results", save_every=5, say=said.append).run(lambda: False)
    assert said[0].endswith("CPU ms a step, no episode has ended") and "return agent" in said[1]


def test_a_result_of_other_arithmetic_is_not_taken_for_finished(tmp_path, undisturbed):
    result = files.read(undisturbed.result_file)
    assert result["numerics"] == NUMERICS
    job = tiny_job(tmp_path)
    files.write(job.result_file, {**result, "numerics": NUMERICS - 1})
    with pytest.raises(JobError, match=rf"otherwise: numerics was {NUMERICS - 1} and is {NUMERICS} now: give another --name, or remove"):
        job.is_finished()


def test_who_tunes_does_not_look_at_the_episodes_of_the_table():
    seeds = {name: tiny_plan(name=name).identity()["judging"]["first_seed"] for name in ("final", *ABLATIONS, "tiny")}
    assert seeds.pop("tiny") == 15_000
    assert set(seeds.values()) == {10_000}


def test_what_is_finished_is_skipped(undisturbed):
    assert tiny_job(undisturbed.result_file.parents[3]).is_finished()
    plan = make_plan("tiny", "ci-tiny", "simple_spread_v3", 6, STEPS, TINY, JUDGING)
    other_seed = Job(plan, Path("unused"), undisturbed.result_file.parents[2], save_every=20, say=lambda _: None)
    assert not other_seed.is_finished()


def test_jobs_are_listed_finished_or_not(tmp_path, undisturbed, capsys):
    folder = undisturbed.result_file.parents[3]
    stopped = tiny_job(tmp_path)
    stopped.run((stopped.folder / "step_000000100").exists)
    assert learning.main(["show", "--work", str(tmp_path / "work"), "--results", str(tmp_path)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"tiny/simple_spread_v3/seed_{SEED}  each agent: 60: −") and "… at 100, " in line
    assert learning.main(["show", "--work", str(folder / "work"), "--results", str(folder / "results"), "--name", "tiny"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "120: −" in line and "180: sampled −" in line and "greedy −" in line
    assert learning.main(["show", "--work", str(folder), "--results", str(folder / "results"), "--name", "other"]) == 0
    assert not capsys.readouterr().out


def test_a_file_of_no_seed_is_named(tmp_path, capsys):
    stray = tmp_path / "final" / "simple_spread_v3" / "seed_1 (copy).json"
    stray.parent.mkdir(parents=True)
    stray.write_text("{}", encoding="utf-8")
    assert learning.main(["show", "--work", str(tmp_path / "work"), "--results", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "final/simple_spread_v3/seed_1 (copy) is named after no seed (seed_1, seed_2, …): remove it, or name it so\n"
    )


LENGTHS = ("world_model.window_length", "world_model.max_positions", "schedule.warmup_steps")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["simple_tag_v3"], "was trained on simple_spread_v3, which is not what is to be played: simple_tag_v3"),
        (
            ["simple_spread_v3", *(f"--set={key}=201" for key in LENGTHS)],
            "holds 200 rows of play, less than world_model.window_length = 201",
        ),
    ],
)
def test_fixed_play_is_refused_that_cannot_be_learned_from(undisturbed, monkeypatch, capsys, words, sentence):
    play = ["--preset", "ci-tiny", "--play", str(undisturbed.folder / f"step_{STEPS:09d}")]
    monkeypatch.setattr(sys, "argv", ["fixed_play.py", *words, *play])
    assert run_program(fixed_play.main) == 1
    out, error = capsys.readouterr()
    assert sentence in error and (out, error.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set", "world_model.latent=4"], "world_model.latent"),
        (["--set", "seed=4"], "use --seeds"),
        (["--name", "../up"], "a name is made of"),
        (["--preset", "huge"], "there is no preset 'huge'"),
        (["--scenario", "simple_spred_v3"], "simple_spread_v3"),
    ],
)
def test_a_wrong_word_is_refused_in_one_sentence(capsys, words, sentence):
    assert learning.main(["train", "--scenario", "simple_spread_v3", *words]) == 1
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_a_seed_below_zero_is_refused_by_its_name(capsys):
    with pytest.raises(SystemExit, match="2"):
        learning.main(["train", "--scenario", "simple_spread_v3", "--seeds", "-1"])
    assert "argument --seeds: -1 is no whole number from 0" in capsys.readouterr().err
