"""The catalog: runs of MLflow, git and work directories merged into one each, in numbers that a cluster makes."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from matwm.manifest import ROOT
from matwm.step_names import step_name
from pipeline import project as places
from pipeline import runs
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.current import Described, current_runs, unbroken
from pipeline.catalog.lineage import Lineage
from pipeline.commands import tree
from pipeline.params.segments import Origin, resolve_all
from pipeline.process import exclusive
from pipeline.run import Run
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import Project, tiny_params

KEY = "k" * 64


def make_runs(root: Path, parents: list[int | None]) -> list[str]:
    """Write runs into MLflow's database, number N a millisecond after N - 1; `parents` are numbers of earlier ones. Return their IDs."""
    ids = [f"{number:032x}" for number in range(len(parents))]
    uri = runs.configured_uri()
    experiment = runs.experiment_id(uri, "generated")
    rows, tags = [], []
    for number, parent in enumerate(parents):
        where = f"{root}/mlruns/generated/{ids[number]}/artifacts"
        began = 1_000_000 + number
        rows.append((ids[number], f"r{number}", "FINISHED", began, began, "active", where, int(experiment), "somebody"))
        own = {"segment": f"r{number}", "key": f"{number:064x}", "step": str(10 * (number + 1))}
        if parent is not None:
            own |= {"parent_run": ids[parent], "parent_step": str(10 * (parent + 1)), "parent_digest": f"{parent:064x}"}
        tags += [(f"matwm.{key}", value, ids[number]) for key, value in own.items()]
    with sqlite3.connect(root / "mlflow.db") as database:
        names = "run_uuid, name, status, start_time, end_time, lifecycle_stage, artifact_uri, experiment_id, user_id"
        database.executemany(f"insert into runs ({names}) values ({', '.join('?' * 9)})", rows)
        database.executemany("insert into tags (key, value, run_uuid) values (?, ?, ?)", tags)
    return ids


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many runs each call of MLflow has brought."""
    from mlflow import MlflowClient

    found: list[int] = []
    search = MlflowClient.search_runs

    def counting(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        page = search(self, *arguments, **options)
        found.append(len(page))
        return page

    monkeypatch.setattr(MlflowClient, "search_runs", counting)
    yield found


def test_a_chain_of_3000_runs_is_listed_drawn_and_walked(root: Path, matwm_in: Matwm, fetched: list[int]) -> None:
    ids = make_runs(root, [None, *range(2999)])
    catalog = Catalog(root)
    assert [run.run_id for run in catalog.all()] == ids[::-1]
    assert fetched == [1000, 1000, 1000]
    last = catalog.find("r2999")
    assert [run.run_id for run in catalog.lineage.ancestors(last)] == ids
    parent = catalog.parent(last)
    assert parent is not None
    assert parent.run_id == ids[2998]
    assert catalog.lineage.children(parent.id) == [last]
    assert [(run.run_id, depth) for run, depth in catalog.lineage.walk()] == [(run_id, depth) for depth, run_id in enumerate(ids)]
    code, output, _ = matwm_in(Project(root), "tree", "r2999")
    assert (code, len(output.splitlines())) == (0, 3001)


def test_only_what_is_asked_for_is_fetched(root: Path, matwm_in: Matwm, fetched: list[int]) -> None:
    ids = make_runs(root, [None] * 200)
    assert [run.run_id for run in Catalog(root).recent(20)] == ids[:-21:-1]
    found = Catalog(root).by_key(f"{7:064x}", "r7")
    assert found is not None
    assert found.run_id == ids[7]
    assert Catalog(root).by_key(KEY, "r7") is None
    assert fetched == [20, 1, 0]
    code, output, _ = matwm_in(Project(root), "runs", "--last", "3", "--json")
    assert (code, [entry["run_id"] for entry in json.loads(output)]) == (0, ids[:-4:-1])
    assert [number for number in fetched[3:] if number] == [3]


def test_a_tree_of_10000_runs_is_indexed(root: Path, monkeypatch: pytest.MonkeyPatch, matwm_in: Matwm) -> None:
    ids = [f"{number:032x}" for number in range(10_000)]
    made = [Run(ids[0], "r0", f"{0:064x}", status="FINISHED")]
    made += [
        Run(run_id, f"r{number}", f"{number:064x}", status="FINISHED", parent_run_id=ids[(number - 1) // 3], parent_step=1)
        for number, run_id in enumerate(ids[1:], start=1)
    ]
    monkeypatch.setattr(runs, "list_runs", lambda *_, **__: made[::-1])
    lineage = Catalog(root).lineage
    code, output, _ = matwm_in(Project(root), "tree", "--json")
    assert (code, sum(1 for node in json.loads(output)["nodes"] if node["run_id"])) == (0, 10_000)
    assert [run.segment for run in lineage.children(made[1].id)] == ["r4", "r5", "r6"]
    assert len(lineage.ancestors(made[-1])) == 10
    walked = list(lineage.walk())
    assert len(walked) == len({run.id for run, _ in walked}) == 10_000
    assert max(depth for _, depth in walked) == 9
    drawn = tree._branches([depth for _, depth in walked])
    assert drawn[:3] == ["└ ", "  ├ ", "  │ ├ "]


def test_runs_that_lead_back_to_themselves_begin_at_the_root() -> None:
    made = [Run(name, status="FINISHED") for name in "abcdef"]
    lineage = Lineage(made, {"a": "b", "b": "c", "c": "a", "d": "a", "e": "e"})
    assert [(run.id, depth) for run, depth in lineage.walk()] == [("a", 0), ("c", 1), ("b", 2), ("d", 1), ("e", 0), ("f", 0)]


def test_a_chain_of_3000_segments_is_matched_without_recursion(tmp_path: Path) -> None:
    names = [f"s{number:04d}" for number in range(3000)]
    first = resolve_all(tiny_params(), tmp_path)["s00"]
    graph = {names[0]: replace(first, name=names[0])}
    for above, name in pairwise(names):
        graph[name] = replace(first, name=name, origin=Origin(f"checkpoints/{above}/{step_name(10)}", 10, above))
    params = Described(tmp_path, graph=dict(reversed(graph.items())))  # children first
    made = [Run(f"{number:032x}", name, status="FINISHED") for number, name in enumerate(names)]
    records: dict[str, dict[str, Any]] = {}
    for run in made:
        run.parent_digest, run.parent_step = (ROOT.digest, None) if run.segment == names[0] else ("d" * 64, 10)
        run.key = first.key(run.parent_digest)
        records[str(run.segment)] = {"key": run.key, "parent": {"step": run.parent_step or 0, "digest": run.parent_digest}}
    assert current_runs(params, made) == {str(run.segment): run for run in made}
    assert unbroken(params, records) == set(names)
    records[names[1500]]["key"] = KEY
    assert unbroken(params, records) == set(names[:1500]), "what comes of another training is not what params.yaml describes"


def write(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def tagged(root: Path, segment: str, key: str, **tags: str) -> str:
    uri = runs.configured_uri()
    own = {"matwm.segment": segment, "matwm.key": key, **{f"matwm.{name}": value for name, value in tags.items()}}
    return runs.client(uri).create_run(runs.experiment_id(uri, "merge"), tags=own).info.run_id


def test_one_run_comes_of_what_mlflow_git_and_a_work_directory_say(root: Path) -> None:
    run_id = tagged(root, "s00", KEY, step="60", until="100", device="cpu", heartbeat="w1 1 1")
    work = places.work_folder(root, "s00", KEY)
    facts = {"segment": "s00", "key": KEY, "run_id": run_id, "started": "2026-01-01T00:00:00.000+00:00", "resumed_at": [40], "owner": "w1"}
    write(work / "run.json", {**facts, "checkpoints": [40]})
    write(work / "checkpoints/step_000000080/manifest.json", {})
    (one,) = Catalog(root).all()
    assert (one.run_id, one.segment, one.key, one.step, one.until) == (run_id, "s00", KEY, 80, 100)
    assert (one.work, one.pending, one.resumed_at, one.published) == (work, {80}, [40], None)
    assert (one.started, one.machine, one.experiment) == (facts["started"], {"device": "cpu"}, "merge")
    assert (one.status, one.is_live, one.state) == ("RUNNING", False, "KILLED"), "its own process is dead"
    with exclusive(work / "lock", "it"):
        assert (one.is_live, one.state) == (True, "RUNNING")

    record = {"run_id": run_id, "key": KEY, "parent": {"run_id": None, "step": 0, "digest": "d"}, "numerics": 1, "git": {"commit": "c"}}
    write(root / "metrics/s00/run.json", record | {"libraries": {"torch": "2"}, "device": "cuda", "threads": 1, "started": "then"})
    write(root / "metrics/s00/evaluation.json", {"step": 90})
    write(root / "metrics/s00/train.json", {"step": 90})
    (one,) = Catalog(root).all()
    assert (one.step, one.parent_digest, one.parent_step, one.numerics, one.git) == (90, "d", None, 1, {"commit": "c"})
    assert (one.machine["device"], one.started, one.evaluation) == ("cuda", "then", {"step": 90})
    assert (one.published, one.state) == (root / "checkpoints/s00", "FINISHED")


def test_a_run_that_mlflow_has_under_another_id_is_one_and_is_called_by_both(root: Path) -> None:
    parent, old = tagged(root, "s00", KEY, original_run="f" * 32), "e" * 32
    child = tagged(root, "s01", "c" + KEY, parent_run="f" * 32, parent_step="40")  # It began before its parent was imported.
    write(root / "metrics/s01/run.json", {"run_id": old, "key": "c" + KEY, "parent": {"run_id": "f" * 32, "step": 40, "digest": "d"}})
    catalog = Catalog(root)
    assert {run.run_id for run in catalog.all()} == {parent, child}
    assert catalog.find("fff").run_id == parent
    assert catalog.find("eee").run_id == catalog.find(child[:12]).run_id == child
    assert [run.run_id for run in catalog.lineage.ancestors(catalog.find("s01"))] == [parent, child]


def test_a_run_that_another_machine_goes_on_with_is_running(root: Path) -> None:
    run_id = tagged(root, "s00", KEY, heartbeat="theirs 1 1")
    work = places.work_folder(root, "s00", KEY)
    write(work / "run.json", {"segment": "s00", "key": KEY, "run_id": run_id, "owner": "ours"})
    assert [run.state for run in Catalog(root).all()] == ["RUNNING"]


def test_what_has_no_id_belongs_to_the_run_of_its_key_or_to_none(root: Path) -> None:
    run_id = tagged(root, "s00", KEY)
    write(places.work_folder(root, "s00", KEY) / "run.json", {"segment": "s00", "key": KEY, "run_id": None})
    write(root / "metrics/s01/run.json", {"key": "other" + KEY})
    found = {run.id: run for run in Catalog(root).all()}
    assert set(found) == {run_id, f"s01:other{KEY[:7]}"}
    assert found[run_id].work == places.work_folder(root, "s00", KEY)
    assert (found[f"s01:other{KEY[:7]}"].state, found[f"s01:other{KEY[:7]}"].run_id) == ("FINISHED", None)


def test_a_damaged_work_directory_keeps_its_checkpoints(root: Path) -> None:
    work = root / ".matwm/work/s00-0123"
    write(work / "checkpoints/step_000000080/manifest.json", {"parent": {"step": 40, "digest": "d"}})
    (work / "run.json").write_text("{", encoding="utf-8")
    (one,) = Catalog(root).all()
    assert (one.id, one.segment, one.step, one.parent_step, one.parent_digest) == ("s00-0123", None, 80, 40, "d")


def test_without_mlflow_the_rest_is_known_and_it_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root / "metrics/s00/run.json", {"key": KEY, "run_id": "0" * 32})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    catalog = Catalog(root)
    assert [run.id for run in catalog.all()] == ["0" * 32]
    assert isinstance(catalog.mlflow_error, runs.TrackingError)
    assert catalog.trouble[0] == str(catalog.mlflow_error)
