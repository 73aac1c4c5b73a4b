"""What every checkpoint store keeps to: a new line of `pipeline/stores/table.py` is tested here once it has a way of being filled."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from matwm.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from matwm.errors import UserError
from matwm.step_names import step_name
from matwm.version import NUMERICS
from pipeline import project as places
from pipeline import runs
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.keys import segment_key
from pipeline.run import Run
from pipeline.stores.folders import PublishedStore, WorkStore
from pipeline.stores.mlflow import MlflowStore
from pipeline.stores.protocol import CanDelete, CanPut, CheckpointStore, ForeignError, is_of, pulled
from pipeline.stores.remote import Remote
from pipeline.stores.table import STORES
from pipeline.training.elsewhere import offers
from tests.pipeline import kinds
from tests.pipeline.projects import Project
from tests.pipeline.servers import Server

Save = Callable[..., Checkpoint]
KEY = segment_key(NUMERICS, {"seed": 1}, "0" * 64)
"""Of what `save` makes."""


@dataclass
class Case:
    """A store that is empty, and the run whose checkpoints go there."""

    project: Project
    run: Run
    fill: Callable[[Path], object]
    """Adds a checkpoint the way it gets there in life."""
    files: Callable[[Checkpoint, str], list[Path]]
    """Where a file of a checkpoint lies in the store, to be damaged."""
    is_filled_by_dvc: bool = False
    """Whether the store itself neither adds nor removes anything."""
    is_on_a_server: bool = False

    def open(self, kind: str) -> CheckpointStore:
        (store,) = (store.of(self.project.path) for store in STORES if store.kind == kind)
        assert store is not None
        return store


def project_in(tmp_path: Path) -> Project:
    project = Project.empty(tmp_path / "project")
    (project.path / "dvc.yaml").write_text("", encoding="utf-8")
    return project


def in_folder(home: Path, run: Run, project: Project, *, is_filled_by_dvc: bool) -> Case:
    return Case(
        project,
        run,
        lambda checkpoint: shutil.copytree(checkpoint, home / checkpoint.name),
        lambda checkpoint, name: [home / checkpoint.path.name / name],
        is_filled_by_dvc,
    )


def published(tmp_path: Path, _: pytest.FixtureRequest) -> Case:
    project = project_in(tmp_path)
    home = project.path / "checkpoints/s00"
    return in_folder(home, Run(None, "s00", KEY, published=home), project, is_filled_by_dvc=True)


def imported(tmp_path: Path, _: pytest.FixtureRequest) -> Case:
    project = project_in(tmp_path)
    return in_folder(project.path / "imports/0123abcd", Run("0123abcd", "s00", KEY), project, is_filled_by_dvc=True)


def work(tmp_path: Path, _: pytest.FixtureRequest) -> Case:
    project = project_in(tmp_path)
    folder = places.work_folder(project.path, "s00", KEY)
    return in_folder(folder / "checkpoints", Run(None, "s00", KEY, work=folder), project, is_filled_by_dvc=False)


def dvc_cache(tmp_path: Path, _: pytest.FixtureRequest) -> Case:
    """`dvc commit` fills the cache and the lock; nothing is left in `checkpoints/`."""
    project = project_in(tmp_path)
    stage = "stages:\n  train:\n    foreach: [s00]\n    do:\n      cmd: 'true'\n      outs: ['checkpoints/${item}']\n"
    home = project.path / "checkpoints/s00"

    def fill(checkpoint: Path) -> None:
        (project.path / "dvc.yaml").write_text(stage, encoding="utf-8")
        if (project.path / "dvc.lock").exists():
            project.dvc("checkout", "-q")
        shutil.copytree(checkpoint, home / checkpoint.name)
        project.dvc("commit", "-q", "-f", "train@s00")
        shutil.rmtree(home)

    def files(checkpoint: Checkpoint, name: str) -> list[Path]:
        return [path for path in (project.path / ".dvc/cache").rglob("*") if path.is_file() and same(path, checkpoint.path / name)]

    return Case(project, Run(None, "s00", KEY), fill, files, is_filled_by_dvc=True)


def remote(tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    project, run = project_in(tmp_path), Run(None, "s00", KEY)
    project.add_remote(tmp_path / "remote")

    def fill(checkpoint: Path) -> None:
        store = Remote.of(project.path)
        assert isinstance(store, CanPut)
        store.put(run, checkpoint)

    def files(checkpoint: Checkpoint, name: str) -> list[Path]:
        return [path for path in (tmp_path / "remote/files").rglob("*") if path.is_file() and same(path, checkpoint.path / name)]

    return Case(project, run, fill, files)


def mlflow(tmp_path: Path, request: pytest.FixtureRequest, below: Path | None = None) -> Case:
    project = project_in(tmp_path)
    if below is None:
        shutil.copy(request.getfixturevalue("store_template"), project.path / "mlflow.db")
        runs.configure(project.path)
    uri = runs.configured_uri()
    run_id = runs.client(uri).create_run(runs.experiment_id(uri, "contract")).info.run_id
    found = runs.get_run(run_id)
    assert found is not None
    run = replace(found, segment="s00", key=KEY)

    def fill(checkpoint: Path) -> None:
        MlflowStore.of(project.path).put(run, checkpoint)

    def files(checkpoint: Checkpoint, name: str) -> list[Path]:
        there = [path for path in (below or project.path / "mlruns").rglob(Path(name).name) if run_id in path.parts]
        return [path for path in there if checkpoint.path.name in path.parts or "replay" in path.parts]

    return Case(project, run, fill, files, is_on_a_server=below is not None)


def mlflow_server(tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    server: Server = request.getfixturevalue("server")
    return mlflow(tmp_path, request, server.folder)


CASES: Mapping[str, tuple[str, Callable[[Path, pytest.FixtureRequest], Case]]] = {
    "published": ("published", published),
    "imported": ("imported", imported),
    "work": ("work", work),
    "dvc_cache": ("dvc_cache", dvc_cache),
    "remote": ("remote", remote),
    "mlflow": ("mlflow", mlflow),
    "mlflow over a server": ("mlflow", mlflow_server),
}


def same(path: Path, other: Path) -> bool:
    return path.stat().st_size == other.stat().st_size and path.read_bytes() == other.read_bytes()


def damage(paths: list[Path]) -> None:
    """Flip one bit of a file, in a copy: the file may be one inode with others."""
    assert paths
    for path in paths:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.unlink()
        path.write_bytes(data)


@pytest.fixture(params=CASES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def case(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    return CASES[kind][1](tmp_path, request)


@pytest.fixture
def store(kind: str, case: Case) -> Iterator[Callable[[], CheckpointStore]]:
    """A function that opens the store anew, as every command does."""
    return lambda: case.open(CASES[kind][0])


Open = Callable[[], CheckpointStore]


def test_every_store_of_the_table_is_tested() -> None:
    kinds = [store.kind for store in STORES]
    assert {name for name, _ in CASES.values()} == set(kinds)
    assert len(kinds) == len(set(kinds))


def test_what_it_has_is_listed_opened_and_pulled(case: Case, store: Open, save: Save, tmp_path: Path) -> None:
    assert store().steps(case.run) == []
    made = {step: save(step) for step in (200, 100)}
    for checkpoint in made.values():
        case.fill(checkpoint.path)
    assert store().steps(case.run) == [100, 200]
    assert store().steps(Run("f" * 32, "s01", "f" * 64)) == [], "another run has nothing there"
    for step, checkpoint in made.items():
        found = store().open(case.run, step)
        assert (found.digest, found.step, found.total_bytes) == (checkpoint.digest, step, checkpoint.total_bytes)
        assert is_of(found, case.run, step)
        folder = store().folder(case.run, step)
        assert folder is None or open_checkpoint(folder).digest == checkpoint.digest
        pulled = store().pull(case.run, step, tmp_path / "pulled")
        assert pulled.path == tmp_path / "pulled" / step_name(step)
        assert open_checkpoint(pulled.path).digest == checkpoint.digest
    assert {path.name for path in (tmp_path / "pulled").iterdir()} == {step_name(100), step_name(200)}
    assert store().pull(case.run, 200, tmp_path / "pulled").digest == made[200].digest, "to pull it again changes nothing"


def test_chunks_that_are_near_do_for_a_pull(case: Case, store: Open, save: Save, tmp_path: Path) -> None:
    first, second = save(200), save(300)
    case.fill(second.path)
    assert open_checkpoint(store().pull(case.run, 300, tmp_path / "pulled", [first.path]).path).digest == second.digest


def test_what_it_lacks_is_refused_with_what_there_is(kind: str, case: Case, store: Open, save: Save, tmp_path: Path) -> None:
    case.fill(save(100).path)
    for read in (lambda: store().pull(case.run, 150, tmp_path / "pulled"), lambda: store().open(case.run, 150)):
        with pytest.raises((CheckpointError, places.ProjectError, runs.TrackingError)) as refused:
            read()
        assert "150" in str(refused.value)
    assert not (tmp_path / "pulled").exists()


@pytest.mark.parametrize("name", ["manifest.json", "progress.json", "replay"])
def test_what_is_damaged_is_refused_by_name_and_leaves_nothing_behind(
    case: Case, store: Open, save: Save, tmp_path: Path, name: str
) -> None:
    checkpoint = save(100)
    case.fill(checkpoint.path)
    name = name if name != "replay" else next(file for file in checkpoint.manifest["files"] if file.startswith("replay/"))
    damage(case.files(checkpoint, name))
    with pytest.raises(CheckpointError, match=Path(name).name) as refused:
        store().pull(case.run, 100, tmp_path / "pulled")
    assert step_name(100) in str(refused.value)
    assert not (tmp_path / "pulled").exists()
    assert not list(tmp_path.glob(".*"))
    if name == "manifest.json":
        with pytest.raises(CheckpointError, match=name):
            store().open(case.run, 100)


def test_the_checkpoint_of_another_training_is_never_taken(case: Case, store: Open, save: Save, tmp_path: Path) -> None:
    case.fill(save(100).path)
    other = replace(case.run, key="b" * 64, work=places.work_folder(case.project.path, "s00", KEY))
    with pytest.raises((CheckpointError, places.ProjectError)):
        pulled(store(), other, 100, tmp_path / "pulled")
    assert not (tmp_path / "pulled" / step_name(100)).exists()


def test_the_checkpoint_of_another_training_or_step_is_told_from_the_runs_own(case: Case, store: Open, save: Save, tmp_path: Path) -> None:
    case.fill(save(100).path)
    (case.project.path / "params.yaml").write_text("", encoding="utf-8")
    other = replace(case.run, key="b" * 64)
    for run, expected in ((case.run, Checkpoint), (other, ForeignError)):
        checkpoints = Checkpoints(Catalog(case.project.path), [store()])
        if run is other and not checkpoints.where(run):
            continue  # It is asked by the key.
        assert isinstance(checkpoints.manifest(run, 100), expected)
        assert (checkpoints.sound(run, 100, tmp_path / "scratch") is None) == checkpoints.is_foreign(run, 100) == (run is other)


class Silent(PublishedStore):
    """A store that does not answer."""

    name = "the attic"

    def steps(self, run: Run) -> list[int]:
        raise UserError("the attic does not answer: climb up")


def test_a_store_that_does_not_answer_is_left_out(
    tmp_path: Path, request: pytest.FixtureRequest, save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    case = published(tmp_path, request)
    case.fill(save(100).path)
    (case.project.path / "params.yaml").write_text("", encoding="utf-8")
    catalog = Catalog(case.project.path)
    checkpoints = Checkpoints(catalog, [Silent(case.project.path), PublishedStore(case.project.path)])
    assert list(checkpoints.where(case.run)) == [100]
    assert checkpoints.bring(case.run, 100, tmp_path / "brought")[1].name == "checkpoints/"
    assert "the attic does not answer: climb up" in catalog.trouble
    assert [offer.store.name for offer in offers(case.project.path, case.run, [Silent, PublishedStore])] == ["checkpoints/"]
    assert "the attic does not answer" in caplog.text


def test_what_can_put_and_delete_says_so(case: Case, store: Open) -> None:
    is_written = not case.is_filled_by_dvc
    assert (isinstance(store(), CanPut), isinstance(store(), CanDelete)) == (is_written, is_written)


def test_putting_again_changes_nothing_and_another_one_is_refused(kind: str, case: Case, store: Open, save: Save, tmp_path: Path) -> None:
    if case.is_filled_by_dvc:
        pytest.skip("DVC fills it")
    taker = store()
    assert isinstance(taker, CanPut)
    checkpoint = save(100)
    taker.put(case.run, checkpoint.path)
    before = {path: path.stat().st_mtime_ns for name in checkpoint.manifest["files"] for path in case.files(checkpoint, name)}
    taker.put(case.run, checkpoint.path)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    checkpoint.path.rename(tmp_path / "aside")
    with pytest.raises((CheckpointError, places.ProjectError), match=f"{step_name(100)}|step 100"):
        taker.put(case.run, save(100, seed=0.5).path)
    assert store().open(case.run, 100).digest == checkpoint.digest


def test_a_damaged_checkpoint_is_not_taken(kind: str, case: Case, store: Open, save: Save) -> None:
    if case.is_filled_by_dvc:
        pytest.skip("DVC fills it")
    taker, checkpoint = store(), save(100)
    assert isinstance(taker, CanPut)
    damage([checkpoint.path / "agents.safetensors"])
    with pytest.raises((CheckpointError, places.ProjectError), match=r"agents\.safetensors is damaged"):
        taker.put(case.run, checkpoint.path)
    assert store().steps(case.run) == []


def test_what_is_deleted_is_gone_and_the_rest_is_whole(kind: str, case: Case, store: Open, save: Save, tmp_path: Path) -> None:
    if case.is_filled_by_dvc:
        pytest.skip("DVC's to remove")
    made = {step: save(step) for step in (100, 200, 300)}
    for checkpoint in made.values():
        case.fill(checkpoint.path)
    keeper = store()
    assert isinstance(keeper, CanDelete)
    assert keeper.refusal(case.run) is None
    assert (keeper.freed(case.run, [100]) > 0) == case.is_on_a_server
    keeper.delete(case.run, [100, 300], is_live=False)
    keeper.delete(case.run, [300, 400], is_live=False)
    keeper.delete(Run("f" * 32, "s01", "f" * 64), [100], is_live=False)
    assert store().steps(case.run) == [200]
    assert store().pull(case.run, 200, tmp_path / "pulled").digest == made[200].digest


def test_a_store_is_opened_before_anything_else_is(kind: str, case: Case, store: Open, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    case.fill(save(100).path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", runs.configured_uri() if CASES[kind][0] == "mlflow" else "sqlite:///mlflow.db")
    monkeypatch.setattr(runs, "_configured", {})
    assert store().steps(case.run) == [100]


def test_a_run_of_the_same_training_has_nothing_in_anothers_work_directory(
    tmp_path: Path, request: pytest.FixtureRequest, save: Save
) -> None:
    """Two machines on one database: what `prune` removes of the one is not the other's."""
    case = work(tmp_path, request)
    case.fill(save(100).path)
    store = WorkStore.of(case.project.path)
    assert store.steps(case.run) == [100]
    other = replace(case.run, run_id="f" * 32, work=None)
    assert store.steps(other) == []
    store.delete(other, [100], is_live=False)
    assert store.steps(case.run) == [100]


@pytest.mark.parametrize("where", ["s3", "ssh"])
def test_a_remote_over_a_network_keeps_to_it_too(where: str, save: Save, tmp_path: Path) -> None:
    project, run = project_in(tmp_path), Run(None, "s00", KEY)
    (tmp_path / "server").mkdir()
    with kinds.s3() if where == "s3" else kinds.ssh(tmp_path / "server") as (url, settings):
        lines = ["[core]", "    remote = store", "['remote \"store\"']", f"    url = {url}", *(f"    {line}" for line in settings)]
        (project.path / ".dvc/config").write_text("\n".join(lines) + "\n", encoding="utf-8")
        store = Remote.of(project.path)
        assert isinstance(store, CanPut)
        assert isinstance(store, CanDelete)
        for step in (100, 200):
            store.put(run, save(step).path)
        assert store.open(run, 200).digest == save(200).digest
        store.delete(run, [100], is_live=False)
        assert store.steps(run) == [200]
        assert store.pull(run, 200, tmp_path / "pulled").digest == save(200).digest
