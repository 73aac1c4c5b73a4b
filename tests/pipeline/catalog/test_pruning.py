"""What `matwm prune` removes: laws over random lineages in real folders, and the stores as they are, local and over HTTP."""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matwm.checkpoint import Checkpoint, CheckpointError, Parent, open_checkpoint, publish, read_manifest
from matwm.config import RetentionConfig
from matwm.history import Episode, History
from matwm.manifest import ROOT
from matwm.stateful import Chunk
from matwm.step_names import step_name
from matwm.store import LocalStore
from matwm.types import EnvSpec
from pipeline import project as places
from pipeline import runs
from pipeline.catalog import pruning
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.catalog.pruning import Needs
from pipeline.keys import manifest_key
from pipeline.run import PIN, Run
from pipeline.stores.folders import WorkStore
from pipeline.stores.mlflow import MlflowStore
from tests.pipeline import in_mlflow

SPEC = EnvSpec(name="toy", agents=("wolf_0",), obs_sizes=(3,), num_actions=(2,))
NOBODY = Needs({}, {})


@dataclass
class Plan:
    """One run to be made."""

    parent: tuple[int, int] | None
    steps: list[int]
    policy: RetentionConfig | None
    places: tuple[bool, bool]
    pins: set[int] = field(default_factory=set)
    damaged: dict[int, str] = field(default_factory=dict)
    is_live: bool = False


def policy(**values: int | None) -> RetentionConfig:
    return RetentionConfig.model_validate({"keep_last": 0, "keep_every": None, "keep_best": 0, **values})


@st.composite
def _lineages(draw: st.DrawFn) -> list[Plan]:
    plans: list[Plan] = []
    for number in range(draw(st.integers(1, 3))):
        origin = draw(st.sampled_from(range(number))) if number and draw(st.integers(0, 3)) else None
        parent = None if origin is None else (origin, draw(st.sampled_from(plans[origin].steps)))
        start = parent[1] if parent else 0
        steps = [start + 7 * count for count in sorted(draw(st.sets(st.integers(1, 6), min_size=1, max_size=5)))]
        chosen = draw(
            st.none()
            | st.builds(
                RetentionConfig,
                keep_last=st.none() | st.integers(0, 2),
                keep_every=st.none() | st.integers(5, 30),
                keep_best=st.integers(0, 2),
            )
        )
        damaged = draw(st.dictionaries(st.sampled_from(steps), st.sampled_from(["agents.safetensors", "manifest.json", "replay"])))
        pins = draw(st.sets(st.sampled_from(steps), max_size=2))
        kinds = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
        plans.append(Plan(parent, steps, chosen, kinds, pins, damaged, draw(st.booleans())))
    return plans


def make(store: LocalStore, step: int, parent: Parent, seed: int = 0) -> Checkpoint:
    chunks = [Chunk({"obs": np.full((4, 2), seed + number, np.float32)}) for number in range(step // 10)]
    history = History()
    for end in range(5, step + 1, 5):
        history.episodes.append(Episode(end, 5, (float(end * (7 + seed) % 11),)))
    parts = {name: {"weight": torch.full((4, 3), float(step + seed))} for name in ("world_model", "agents", "optimizers")}
    return store.save(
        step, {**parts, "history": history.state_dict(), "replay": {"total_rows": step, "chunks": chunks}, "progress": {"env_step": step}},
        parent=parent, config={"seed": seed}, spec=SPEC, policies={"wolf_0": {"weight": torch.zeros(2)}},
    )  # fmt: skip


def damage(folder: Path, what: str) -> None:
    """Flip a byte in place, under all names of the file; of a chunk, in all checkpoints that share it."""
    file = next((folder / "replay").glob("*"), folder / "progress.json") if what == "replay" else folder / what
    with file.open("r+b") as stream:
        stream.seek(-3, os.SEEK_END)
        byte = stream.read(1)
        stream.seek(-3, os.SEEK_END)
        stream.write(bytes([byte[0] ^ 1]))


def build(folder: Path, plans: list[Plan]) -> list[Run]:
    """Write the checkpoints of some runs, and return them as a project would find them."""
    found: list[Run] = []
    digests: dict[tuple[int, int], Parent] = {}
    for number, plan in enumerate(plans):
        parent = digests[plan.parent] if plan.parent else ROOT
        work, artifacts = (folder / f"{number}" / kind / "checkpoints" for kind in ("work", "artifacts"))
        store = LocalStore(work if plan.places[0] else artifacts)
        key = "none"
        for step in plan.steps:
            checkpoint = make(store, step, parent, number)
            digests[number, step], key = Parent(step, checkpoint.digest), manifest_key(checkpoint.manifest)
            if all(plan.places):
                publish(checkpoint.path, artifacts / checkpoint.path.name)
        run = Run(f"run{number}", f"s{number:02d}", key, parent_digest=parent.digest, parent_step=parent.step)
        run.status, run.parent_run_id = "RUNNING" if plan.is_live else "FINISHED", f"run{plan.parent[0]}" if plan.parent else None
        run.tags = {f"{PIN}{step_name(step)}": pruning.PINNED for step in plan.pins}
        run.work, run.artifact_uri = work.parent, str(artifacts.parent)
        found.append(run)
    for number, plan in enumerate(plans):
        for step, what in plan.damaged.items():
            damage(folder / f"{number}" / ("work" if plan.places[0] else "artifacts") / "checkpoints" / step_name(step), what)
    return found


def stores_of(folder: Path) -> Checkpoints:
    """Look at the stores anew: the work directories, and artifacts that are MLflow's own."""
    return Checkpoints(Catalog(folder), [WorkStore(folder), MlflowStore("http://127.0.0.1:9")], is_strict=True)


def decide_one(run: Run, checkpoints: Checkpoints, needs: Needs, kept: RetentionConfig | None) -> list[pruning.Decision]:
    return pruning.decide(run, checkpoints, needs, kept, None, checkpoints.project / "scratch")


def decide(checkpoints: Checkpoints, found: list[Run], plans: list[Plan]) -> list[pruning.Decision]:
    needs = Needs(pruning.needs_of(checkpoints, found).ancestors, {})
    return [decision for run, plan in zip(found, plans, strict=True) for decision in decide_one(run, checkpoints, needs, plan.policy)]


def soundness(folder: Path, found: list[Run]) -> dict[tuple[str, int], str | None]:
    """Return every checkpoint with its fingerprint, None if it is damaged."""
    seen: dict[tuple[str, int], str | None] = {}
    checkpoints = stores_of(folder)
    for run in found:
        for step in checkpoints.where(run):
            checkpoint = checkpoints.sound(run, step, folder / "scratch")
            seen[run.id, step] = checkpoint.fingerprint if checkpoint else None
    return seen


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(_lineages())
def test_what_remains_can_be_walked_back_and_gone_on_from(monkeypatch: pytest.MonkeyPatch, plans: list[Plan]) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found, checkpoints = build(folder, plans), stores_of(folder)
        before = soundness(folder, found)
        decisions = decide(checkpoints, found, plans)
        weight = pruning.weigh(decisions, checkpoints)
        used = disk_usage(folder)
        pruning.execute(decisions, checkpoints)
        after = soundness(folder, found)

        assert disk_usage(folder) == used - weight.freed
        assert after == {key: before[key] for key in after}, "what stays is as it was"
        assert set(after) == {(decision.run.id, decision.step) for decision in decisions if decision.is_kept}
        assert not [path for path in folder.rglob("step_*") if not (path / "manifest.json").exists()]
        for number, (one, plan) in enumerate(zip(found, plans, strict=True)):
            assert (one.id, max(plan.steps)) in after
            assert all((one.id, step) in after for step in plan.pins)
            sound = [step for step in plan.steps if before[one.id, step]]
            if sound:
                assert after[one.id, max(sound)], "the newest sound one"
            else:
                assert all((one.id, step) in after for step in plan.steps)
            if plan.parent:
                assert (f"run{plan.parent[0]}", plan.parent[1]) in after, f"run {number} came from there"
            if plan.policy is None:
                assert all((one.id, step) in after for step in plan.steps)
        assert all(decision.is_kept for decision in decide(stores_of(folder), found, plans)), "nothing more goes the second time"


def disk_usage(folder: Path) -> int:
    stats = {
        (stat.st_dev, stat.st_ino): stat for path in folder.rglob("*") if path.is_file() and path.name != "lock" for stat in [path.stat()]
    }
    return sum(stat.st_blocks * 512 for stat in stats.values())


def one_run(folder: Path, steps: list[int], **values: object) -> Run:
    return build(folder, [Plan(None, steps, None, (True, True), **values)])[0]  # type: ignore[arg-type]


def reasons_of(folder: Path, run: Run, kept: RetentionConfig, needs: Needs = NOBODY) -> dict[int, tuple[str, ...]]:
    return {decision.step: decision.why for decision in decide_one(run, stores_of(folder), needs, kept)}


def test_every_reason_is_told(tmp_path: Path) -> None:
    run = one_run(tmp_path, [10, 20, 30, 40, 50, 60], pins={20}, is_live=True)
    run.pending = frozenset({40})
    checkpoints = stores_of(tmp_path)
    manifests = {step: checkpoints.manifest(run, step) for step in checkpoints.where(run)}
    digests = {step: found.digest for step, found in manifests.items() if isinstance(found, Checkpoint)}
    needs = Needs({digests[10]: "s01"}, {digests[50]: "checkpoints/s00/step_000000050"})
    assert reasons_of(tmp_path, run, policy(keep_last=1, keep_every=30), needs) == {
        10: ("ancestor of s01",),
        20: ("pinned",),
        30: ("keep_every",),
        40: ("waits for its upload",),
        50: ("published",),
        60: ("newest", "keep_last", "keep_every", "newest of a live run"),
    }


def test_the_newest_sound_one_stays_when_newer_ones_are_damaged(tmp_path: Path) -> None:
    run = one_run(tmp_path, [10, 20, 30, 40], damaged={40: "agents.safetensors", 30: "manifest.json"})
    assert [step for step, why in reasons_of(tmp_path, run, policy()).items() if why] == [20, 40]
    both = one_run(tmp_path / "b", [10, 20], damaged={10: "manifest.json", 20: "manifest.json"})
    assert reasons_of(tmp_path / "b", both, policy()) == {
        10: ("none is sound",),
        20: ("none is sound",),
    }


@pytest.mark.parametrize("is_renamed", [True, False])
def test_what_is_of_another_training_or_step_stays_and_counts_for_nothing(tmp_path: Path, is_renamed: bool) -> None:
    run = one_run(tmp_path, [10, 20])
    assert run.work is not None
    folder = run.work / "checkpoints"
    if is_renamed:
        shutil.copytree(folder / step_name(10), folder / step_name(30))
    else:
        publish(make(LocalStore(tmp_path / "other"), 30, ROOT, seed=1).path, folder / step_name(30))
    assert reasons_of(tmp_path, run, policy(keep_last=1)) == {
        10: (),
        20: ("newest", "keep_last", "newest sound"),
        30: ("of another training",),
    }
    checkpoints = stores_of(tmp_path)
    pruning.execute(decide_one(run, checkpoints, NOBODY, policy(keep_last=1)), checkpoints)
    assert checkpoints.stores[0].steps(run) == [20, 30]
    assert stores_of(tmp_path).sound(run, 20, tmp_path / "scratch")
    assert stores_of(tmp_path).sound(run, 30, tmp_path / "scratch") is None


def test_a_step_of_which_one_copy_is_another_trainings_stays(tmp_path: Path) -> None:
    run = one_run(tmp_path, [10, 20])
    other = make(LocalStore(tmp_path / "other"), 10, ROOT, seed=1)
    shutil.rmtree(Path(str(run.artifact_uri)) / "checkpoints" / step_name(10))
    publish(other.path, Path(str(run.artifact_uri)) / "checkpoints" / step_name(10))
    assert reasons_of(tmp_path, run, policy(keep_last=1))[10] == ("of another training",)


@pytest.mark.parametrize("manifests_gone", [0, 1, 2])
def test_an_interrupted_removal_leaves_whole_checkpoints_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifests_gone: int
) -> None:
    run, checkpoints = one_run(tmp_path, [10, 20, 30, 40]), stores_of(tmp_path)
    decisions = decide_one(run, checkpoints, NOBODY, policy(keep_last=1))
    unlink, done = Path.unlink, []

    def dying(self: Path, missing_ok: bool = False) -> None:
        if self.name == "manifest.json":
            if len(done) == manifests_gone:
                raise KeyboardInterrupt
            done.append(self)
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dying)
        patch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pruning.execute(decisions, checkpoints)
    checkpoints = stores_of(tmp_path)
    assert len(checkpoints.stores[0].steps(run)) == 4 - manifests_gone
    for store in checkpoints.stores:
        for step in store.steps(run):
            open_checkpoint(store.open(run, step).path)
    pruning.execute(decide_one(run, checkpoints, NOBODY, policy(keep_last=1)), checkpoints)
    assert {path.name for path in tmp_path.rglob("step_*")} == {step_name(40)}


def test_a_run_that_a_process_trains_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.process import exclusive

    run, checkpoints = one_run(tmp_path, [10, 20]), stores_of(tmp_path)
    decisions = decide_one(run, checkpoints, NOBODY, policy(keep_last=1))
    assert run.work is not None
    with exclusive(run.work / "lock", "x"):
        assert run.is_live
        monkeypatch.setattr(Run, "is_live", False)  # as it was seen a moment before
        with pytest.raises(places.ProjectError, match="run run0 is in the hands of process"):
            pruning.execute(decisions, checkpoints)
    assert checkpoints.stores[0].steps(run) == [10, 20]


# ---- over HTTP


def remote(server, tmp_path: Path, steps: list[int]) -> tuple[str, Callable[[], tuple[Run, Checkpoints]]]:
    uri = runs.configured_uri()
    run_id = runs.client(uri).create_run(runs.experiment_id(uri, "prune"), tags={"matwm.segment": "s00"}).info.run_id
    store = LocalStore(tmp_path / "made")
    for step in steps:
        in_mlflow.put(run_id, make(store, step, ROOT).path)
    runs.client(uri).set_terminated(run_id)

    def look() -> tuple[Run, Checkpoints]:
        catalog = Catalog(tmp_path)
        return next(run for run in catalog.all() if run.run_id == run_id), pruning.prunable(catalog)

    return run_id, look


def prune(run: Run, checkpoints: Checkpoints) -> None:
    pruning.execute(decide_one(run, checkpoints, NOBODY, policy(keep_last=1)), checkpoints)


def artifacts(server, run_id: str) -> set[str]:
    (folder,) = [path for path in server.folder.rglob("artifacts") if path.parent.name == run_id]
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_server_loses_what_goes_and_no_chunk_that_stays(server, tmp_path: Path) -> None:
    run_id, look = remote(server, tmp_path, [20, 40, 60])
    kept = {name for name in artifacts(server, run_id) if "000000020" in name} | {
        name for step in (20, 60) for name in read_manifest(tmp_path / "made" / step_name(step)).manifest["files"] if name[:7] == "replay/"
    }
    run, checkpoints = look()
    run.tags = {**run.tags, f"{PIN}{step_name(20)}": "why"}
    decisions = decide_one(run, checkpoints, NOBODY, policy(keep_last=1))
    before = sum(path.stat().st_size for path in server.folder.rglob("*") if path.is_file() and run_id in path.parts)
    freed = pruning.weigh(decisions, checkpoints).freed_on_server
    pruning.execute(decisions, checkpoints)
    assert kept <= artifacts(server, run_id)
    after = sum(path.stat().st_size for path in server.folder.rglob("*") if path.is_file() and run_id in path.parts)
    manifest = (tmp_path / "made" / step_name(40) / "manifest.json").stat().st_size
    assert before - after == freed + manifest
    assert in_mlflow.steps(run_id) == [20, 60]
    for step in (20, 60):
        in_mlflow.pull(run_id, step, tmp_path / "pulled")
    prune(*look())
    assert in_mlflow.steps(run_id) == [60]
    assert in_mlflow.pull(run_id, 60, tmp_path / "again").step == 60


def test_half_a_removal_on_a_server_is_finished_the_next_time(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

    run_id, look = remote(server, tmp_path, [10, 20])
    delete, calls = HttpArtifactRepository.delete_artifacts, []

    def breaking(self, artifact_path: str | None = None) -> None:
        if calls:
            raise ConnectionError("the cable was pulled")
        calls.append(artifact_path)
        delete(self, artifact_path)

    with monkeypatch.context() as patch:
        patch.setattr(HttpArtifactRepository, "delete_artifacts", breaking)
        with pytest.raises(runs.TrackingError, match="the cable was pulled"):
            prune(*look())
    assert calls == [f"checkpoints/{step_name(10)}/manifest.json"]
    assert in_mlflow.steps(run_id) == [20]
    prune(*look())
    assert not [name for name in artifacts(server, run_id) if step_name(10) in name]


def test_a_damaged_artifact_on_a_server_does_not_count_as_sound(server, tmp_path: Path) -> None:
    run_id, look = remote(server, tmp_path, [10, 20, 30])
    (file,) = [path for path in server.folder.rglob("agents.safetensors") if run_id in path.parts and step_name(30) in path.parts]
    damage(file.parent, "agents.safetensors")
    prune(*look())
    assert in_mlflow.steps(run_id) == [20, 30]
    with pytest.raises(CheckpointError):
        in_mlflow.pull(run_id, 30, tmp_path / "pulled")
    assert open_checkpoint(in_mlflow.pull(run_id, 20, tmp_path / "pulled").path).step == 20
