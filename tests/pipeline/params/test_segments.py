"""The segments of params.yaml: what each trains, and every way in which they can be wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from matwm.config import Config, ConfigError
from matwm.params_yaml import parse_config
from matwm.version import NUMERICS
from pipeline.keys import manifest_key, segment_key
from pipeline.params import imports
from pipeline.params.segments import ResolvedSegment, resolve, resolve_all
from tests.pipeline.projects import tiny_params

ROOT = "checkpoints/root"


def step(owner: str, number: int, kind: str = "checkpoints") -> str:
    return f"{kind}/{owner}/step_{number:09d}"


def segments(tmp_path: Path, **entries: Any) -> dict[str, ResolvedSegment]:
    return resolve_all(tiny_params(segments=entries), tmp_path)


def problems(tmp_path: Path, entries: dict[str, Any], changes: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve_all(tiny_params(changes, entries), tmp_path)
    return caught.value.problems


def import_checkpoint(project: Path, changes: dict[str, Any] | None = None) -> str:
    """Write what the checks read of an imported checkpoint."""
    folder = project / step("abc123", 40, "imports")
    folder.mkdir(parents=True)
    config = parse_config(tiny_params(changes)).shaping()
    (folder / "manifest.json").write_text(json.dumps({"step": 40, "config": config}), encoding="utf-8")
    return step("abc123", 40, "imports")


def test_a_root_segment_takes_the_base_and_its_override(tmp_path: Path) -> None:
    override = {"actor_critic": {"learning_rate": 0.5}}
    found = segments(tmp_path, s00={"from": ROOT, "until": 80}, s01={"from": ROOT, "until": 60, "override": override})
    assert found["s00"].config == parse_config(tiny_params())
    assert found["s01"].config == parse_config(tiny_params(override))
    assert found["s01"].origin.step == 0


def test_an_override_is_inherited_along_the_chain(tmp_path: Path) -> None:
    found = segments(
        tmp_path,
        s02={"from": step("s01", 120), "until": 160, "override": {"actor_critic": {"entropy": 0.25}}},
        s01={"from": step("s00", 80), "until": 120, "override": {"actor_critic": {"learning_rate": 0.5}}},
        s00={"from": ROOT, "until": 80},
    )
    assert found["s00"].config.actor_critic.learning_rate == 1e-3
    assert (found["s02"].config.actor_critic.learning_rate, found["s02"].config.actor_critic.entropy) == (0.5, 0.25)
    assert found["s02"].origin.segment == "s01"


def test_a_segment_saves_by_interval_by_name_and_at_its_end(tmp_path: Path) -> None:
    found = segments(tmp_path, s00={"from": ROOT, "until": 100}, s01={"from": step("s00", 70), "until": 130})
    assert found["s00"].saves == (40, 70, 80, 100)
    assert found["s01"].saves == (80, 120, 130)


def test_the_key_moves_with_what_shapes_training_and_with_nothing_else(tmp_path: Path) -> None:
    def key(changes: dict[str, Any], until: int = 80, digest: str = "d") -> str:
        return resolve(tiny_params(changes, {"s00": {"from": ROOT, "until": until}}), "s00", tmp_path).key(digest)

    assert key({}) == key({"run": {"save_interval": 7}, "evaluation": {"episodes": 9}, "tracking": {"experiment": "x"}}, until=90)
    others = [key({"seed": 1}), key({"world_model": {"learning_rate": 0.1}}), key({"run": {"threads": 2}}), key({}, digest="e")]
    assert len({key({}), *others}) == 5


def test_the_key_can_be_read_off_a_checkpoint(tmp_path: Path) -> None:
    segment = segments(tmp_path, s00={"from": ROOT, "until": 80})["s00"]
    manifest = json.loads(json.dumps({"numerics": NUMERICS, "config": segment.config.shaping(), "parent": {"step": 0, "digest": "d"}}))
    assert manifest_key(manifest) == segment.key("d")
    assert segment_key(NUMERICS + 1, segment.config.shaping(), "d") != segment.key("d")


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (
            {"from": step("s9", 40), "until": 120},
            ".from is 'checkpoints/s9/step_000000040', but there is no segment s9 (known: s00, s01)",
        ),
        (
            {"from": step("s00", 100), "until": 120},
            ".from is 'checkpoints/s00/step_000000100', but segments.s00 goes from step 0 to 80",
        ),
        (
            {"from": step("s00", 0), "until": 120},
            ".from is 'checkpoints/s00/step_000000000', but segments.s00 goes from step 0 to 80",
        ),
        ({"from": step("s01", 40), "until": 120}, ".from is 'checkpoints/s01/step_000000040', a checkpoint of itself"),
        ({"from": "checkpoints/s00", "until": 120}, ".from is 'checkpoints/s00': expected checkpoints/root"),
        ({"from": "../x", "until": 120}, ".from is '../x': expected checkpoints/root"),
        (
            {"from": "checkpoints/s00/step_0000000040", "until": 120},
            ".from is 'checkpoints/s00/step_0000000040': expected checkpoints/root",
        ),
        (
            {"from": ROOT, "until": 900_000_000},
            ".until is 900000000, which with run.save_interval = 40 makes 22500000 checkpoints, more than",
        ),
        ({"from": step("s00", 80), "until": 80}, ".until is 80, which is not beyond step 80 of checkpoints/s00/step_000000080"),
        ({"from": ROOT, "until": 0}, ".until is 0"),
        ({"from": ROOT, "until": "80"}, ".until is the text '80', not a whole number: write 80"),
        ({"from": ROOT}, ".until is missing"),
        ({"from": ROOT, "untill": 5, "until": 6}, ".untill is unknown, did you mean until?"),
        ({"from": step("abc", 40, "imports"), "until": 80}, ".from is 'imports/abc/step_000000040', which does not exist"),
    ],
)
def test_a_wrong_segment_is_refused_by_path(tmp_path: Path, entry: dict[str, Any], sentence: str) -> None:
    found = problems(tmp_path, {"s00": {"from": ROOT, "until": 80}, "s01": entry})
    assert len(found) == 1
    assert found[0].startswith(f"params.yaml: segments.s01{sentence}")


@pytest.mark.parametrize("name", ["root", "lineage"])
def test_a_name_that_a_folder_has_already_is_refused(tmp_path: Path, name: str) -> None:
    (found,) = problems(tmp_path, {name: {"from": ROOT, "until": 80}})
    assert found.startswith(f"params.yaml: segments.{name}: the name {name} is taken by ")


def test_a_circle_is_named_once(tmp_path: Path) -> None:
    entries = {"s00": {"from": step("s01", 80), "until": 120}, "s01": {"from": step("s00", 120), "until": 160}}
    assert problems(tmp_path, entries) == ["params.yaml: segments.s00.from leads back to itself: s00 from s01 from s00"]
    entries["s02"] = {"from": step("s01", 160), "until": 200}
    assert problems(tmp_path, entries) == ["params.yaml: segments.s00.from leads back to itself: s00 from s01 from s00"]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ({"world_model": {"lerning_rate": 0.1}}, ".world_model.lerning_rate is unknown, did you mean learning_rate?"),
        ({"world_model": {"learning_rate": "3e-5"}}, ".world_model.learning_rate is the text '3e-5', not a number"),
        ({"world_model": {"hidden_size": 32}}, ".world_model.hidden_size is 32, but the checkpoint it starts from has 16"),
        ({"env": {"name": "simple_spread_v3", "options": {}}}, ".env.name is 'simple_spread_v3', but the checkpoint"),
        ({"world_model": {"window_length": 33}}, ".world_model.window_length is 33, more than world_model.max_positions = 32"),
        ({"segments": {}}, ".segments"),
    ],
)
def test_a_wrong_override_is_refused_by_path(tmp_path: Path, override: dict[str, Any], sentence: str) -> None:
    entries = {"s00": {"from": ROOT, "until": 80}, "s01": {"from": step("s00", 80), "until": 120, "override": override}}
    found = problems(tmp_path, entries)
    assert found[0].startswith(f"params.yaml: segments.s01.override{sentence}")


def test_what_follows_from_a_wrong_parent_is_not_said(tmp_path: Path) -> None:
    entries = {
        "s00": {"from": ROOT, "until": 80},
        "s01": {"from": step("s00", 99), "until": 120},
        "s02": {"from": step("s01", 120), "until": 100},
    }
    assert len(problems(tmp_path, entries)) == 1


def test_problems_of_base_and_segments_are_told_together(tmp_path: Path) -> None:
    assert len(problems(tmp_path, {"s00": {"from": ROOT}}, {"seed": -1})) == 2


def test_an_import_trains_with_the_values_it_was_made_with(tmp_path: Path) -> None:
    folder = import_checkpoint(tmp_path)
    found = resolve_all(tiny_params({"run": {"save_interval": 30}}, {"s00": {"from": folder, "until": 80}}), tmp_path)["s00"]
    assert found.config == parse_config(tiny_params({"run": {"save_interval": 30}}))
    assert (found.origin.run, found.saves) == ("abc123", (60, 80))


def test_an_import_that_the_base_contradicts_is_refused_unless_the_override_settles_it(tmp_path: Path) -> None:
    tuned = {"actor_critic": {"learning_rate": 0.5}}
    folder = import_checkpoint(tmp_path, tuned)
    assert problems(tmp_path, {"s00": {"from": folder, "until": 80}}) == [
        f"params.yaml: segments.s00.from is '{folder}', which was trained with other values: "
        "actor_critic.learning_rate (there 0.5, in params.yaml 0.001): make params.yaml say the same"
    ]
    settled = {"s00": {"from": folder, "until": 80, "override": tuned}}
    assert resolve_all(tiny_params(segments=settled), tmp_path)["s00"].config.actor_critic.learning_rate == 0.5


def test_an_import_from_another_environment_is_refused(tmp_path: Path) -> None:
    folder = import_checkpoint(tmp_path, {"env": {"name": "simple_spread_v3", "options": {"max_cycles": 12}}})
    found = problems(tmp_path, {"s00": {"from": folder, "until": 80}})
    assert "env.name (there 'simple_spread_v3', in params.yaml 'simple_tag_v3')" in found[0]


def test_an_import_is_resolved_from_what_git_has_of_it(tmp_path: Path) -> None:
    folder = import_checkpoint(tmp_path)
    entries = {"s00": {"from": folder, "until": 80}}
    record = imports.record(tmp_path, folder)
    (tmp_path / folder / "manifest.json").rename(record)
    (tmp_path / folder).rmdir()  # a clone before `dvc pull`
    assert resolve_all(tiny_params(segments=entries), tmp_path)["s00"].origin.run == "abc123"
    record.unlink()
    (tmp_path / f"{folder}.dvc").touch()
    (found,) = problems(tmp_path, entries)
    assert found.endswith(f".from is '{folder}', whose files are not here: run \"dvc pull {folder}.dvc\"")


def test_steps_to_keep_are_saved_and_needed_and_no_part_of_the_key(tmp_path: Path) -> None:
    plain, keeping = (segments(tmp_path, s00={"from": ROOT, "until": 100, **more})["s00"] for more in ({}, {"keep": [70, 40]}))
    assert (plain.saves, plain.needed) == ((40, 80, 100), (100,))
    assert (keeping.saves, keeping.needed) == ((40, 70, 80, 100), (40, 70, 100))
    assert plain.key("d") == keeping.key("d")


@pytest.mark.parametrize(
    ("keep", "sentence"),
    [([101], ".keep names step 101, but the segment goes from step 0 to 100"), ([0], ".keep.0 is 0"), (["40"], ".keep.0 is the text '40'")],
)
def test_a_step_to_keep_must_be_the_segments_own(tmp_path: Path, keep: list[Any], sentence: str) -> None:
    (found,) = problems(tmp_path, {"s00": {"from": ROOT, "until": 100, "keep": keep}})
    assert found.startswith(f"params.yaml: segments.s00{sentence}")


def chain(length: int, *overridden: int) -> dict[str, Any]:
    """A lineage, children first, in which each segment starts from the end of the one before."""
    entries: dict[str, Any] = {"s0": {"from": ROOT, "until": 40}}
    for number in range(1, length):
        entries[f"s{number}"] = {"from": step(f"s{number - 1}", 40 * number), "until": 40 * (number + 1)}
    for number in overridden:
        entries[f"s{number}"]["override"] = {"actor_critic": {"entropy": 0.001 * number}}
    return dict(reversed(entries.items()))


def test_a_lineage_of_thousands_validates_each_override_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validated: list[str] = []
    validate = Config.model_validate
    monkeypatch.setattr(Config, "model_validate", lambda data: validated.append(data["actor_critic"]["entropy"]) or validate(data))
    found = segments(tmp_path, **chain(3_000, 7, 2_000))
    usual = tiny_params()["actor_critic"]["entropy"]
    assert validated == [usual, 0.007, 2.0], "the base, and the two segments that change it"
    assert [found[name].config.actor_critic.entropy for name in ("s6", "s7", "s1999", "s2999")] == [usual, 0.007, 0.007, 2.0]
    assert found["s2998"].needed == (119_960,)


def test_a_circle_of_thousands_is_named_from_its_first_entry_on(tmp_path: Path) -> None:
    entries = chain(2_000)
    entries["s0"]["from"] = step("s1999", 80_000)
    (found,) = problems(tmp_path, {"s1999": entries["s1999"], **entries})
    assert found.startswith("params.yaml: segments.s1999.from leads back to itself: s1999 from s1998 from s1997 from ")
    assert found.endswith(" from s0 from s1999")
