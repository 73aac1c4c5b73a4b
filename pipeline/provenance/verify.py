"""Walks from a checkpoint back to the root and compares every byte, parent and record on the way.

What is read at each checkpoint, newest first: all files against the manifest, the manifest against the digest that the child
claims, the numerics version, the parent that the segment's other checkpoints name, the segment key, DVC's listing, MLflow's copy.
Then for the run: what git, DVC's lock and MLflow record of it. The first thing that is wrong ends the walk.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matwm.checkpoint import Checkpoint, CheckpointError, is_root, open_checkpoint
from matwm.config import ConfigError
from matwm.errors import UserError
from matwm.manifest import MANIFEST, ROOT, Parent
from matwm.params_yaml import read_params
from matwm.version import NUMERICS
from pipeline import project as places
from pipeline import tracking
from pipeline.lineage import Lineage, Node
from pipeline.metrics import records
from pipeline.provenance.recorded import LockedStage, check_commit, check_import
from pipeline.provenance.sources import Facts
from pipeline.provenance.whereabouts import Place, Target, Whereabouts
from pipeline.segments import manifest_key
from pipeline.storage.folder_hash import md5s_of, tree_of


class WrongError(UserError):
    """The first thing that is wrong; the message is one sentence that names it."""


@dataclass(frozen=True)
class Sound:
    """A checkpoint with which nothing is wrong."""

    segment: str | None
    run_id: str | None
    step: int
    digest: str
    fingerprint: str
    bytes: int
    place: str
    kind: str


@dataclass
class Report:
    """What a verification found."""

    sound: list[Sound] = field(default_factory=list)
    """From the checkpoint that was asked for back to the root."""
    warnings: list[str] = field(default_factory=list)
    wrong: str | None = None
    """The first thing that is wrong, None if nothing is."""
    opened: dict[str, Checkpoint] = field(default_factory=dict)
    """The sound checkpoints by digest."""

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"wrong": self.wrong, "warnings": self.warnings, "checkpoints": [asdict(one) for one in self.sound]}


@dataclass(frozen=True)
class Claim:
    """What a child says of the checkpoint that it began with."""

    child: str
    parent: Parent
    folder: str | None
    md5: str | None
    """What dvc.lock has for `folder`, None if it has nothing."""


def verify(lineage: Lineage, text: str, scratch: Path, tell: Callable[[Sound], None] = lambda sound: None) -> tuple[Report, Target | None]:
    """Verify the checkpoint that `text` names and all that it comes from; `tell` gets each sound one when it is found to be so.

    Raises:
        ProjectError: `text` names nothing.
        TrackingError: MLflow, which would have to say what it names, does not answer.
    """
    walk = _Walk(lineage, scratch, tell)
    target = None
    try:
        target = walk.where.target(text)
        walk.back_from(target)
    except (UserError, OSError) as error:
        if target is None and not isinstance(error, CheckpointError):
            raise  # The reference stands for nothing.
        walk.report.wrong = str(error)
    walk.report.warnings = list(dict.fromkeys([*lineage.trouble, *walk.report.warnings]))
    return walk.report, target


class _Walk:
    def __init__(self, lineage: Lineage, scratch: Path, tell: Callable[[Sound], None]) -> None:
        self.lineage, self.project, self.scratch = lineage, lineage.project, scratch
        self.where, self.report, self._tell = Whereabouts(lineage), Report(), tell
        self._witnesses: dict[str, str] = {}
        self._stages: dict[str, LockedStage] = {}

    def back_from(self, target: Target) -> None:
        """Verify a checkpoint and everything before it."""
        node, step, place, claim = target.node, target.step, next(iter(target.places), None), None
        while True:
            place = place or self._located(node, step, claim)
            newest = self._checkpoint(node, step, place, claim)
            node = node or self.where.maker(newest.manifest, newest.path)
            self._earlier(node, newest, place)
            claim = self._claim(node, newest)
            if node is not None and node.facts is not None:
                self._run(node, newest)
            if claim.parent.step == 0:
                self._root(claim)
                break
            if claim.parent.step >= newest.step:
                raise WrongError(f"{newest.path} is of step {newest.step} and says that it began at step {claim.parent.step}")
            node, step, place = self._parent(node), claim.parent.step, None
        asked = self.report.sound[0]
        if asked.digest not in self._witnesses:
            what = f"nothing but the checkpoint itself ({asked.place}) says that it is what was trained"
            self.report.warnings.append(f"{what}: neither dvc.lock nor another copy in MLflow does")

    def _located(self, node: Node | None, step: int, claim: Claim | None) -> Place:
        """Return where the checkpoint lies; of an ancestor, one elsewhere counts too if the digest is that which the child claims."""
        there = self.where.places(node, step) if node else []
        found = next(iter(there), None)
        if found is None and claim is not None:
            found = next(self.where.by_digest(step, claim.parent.digest), None)
        if found is not None:
            return found
        who = f"step {step} of {node.name}" if node else f"step {step}, digest {claim.parent.digest[:12] if claim else ''}"
        needed = f", with which {claim.child} began," if claim else ""
        raise WrongError(f"the checkpoint of {who}{needed} is not here: {self._way_out(node, step)}")

    def _way_out(self, node: Node | None, step: int) -> str:
        run_id = (node.facts.run_id if node.facts else node.id) if node else None
        pointer = f"imports/{run_id}/{places.step_folder(step)}.dvc"
        if run_id and (self.project / pointer).is_file():
            return f'run "dvc pull {pointer}"'
        if node and node.facts and node.facts.published:
            return 'run "dvc pull"'
        asked = "; ".join(self.lineage.trouble) or "no published, imported or work folder has it, and MLflow does not either"
        return f'{asked}. "dvc pull" brings what a DVC remote has'

    def _checkpoint(self, node: Node | None, step: int, place: Place, claim: Claim | None) -> Checkpoint:
        """Verify one checkpoint where it lies."""
        found = place.manifest(self.scratch)
        if claim is not None and found.digest != claim.parent.digest:
            raise WrongError(
                f"{place} is not the checkpoint that {claim.child} began with: its digest is {found.digest}, expected {claim.parent.digest}"
            )
        path = place.whole(self.scratch)
        checkpoint = open_checkpoint(path)
        if checkpoint.step != step or places.step_of(path) not in (None, step):
            raise WrongError(f"{path} holds a checkpoint of step {checkpoint.step}: it was renamed or replaced")
        if checkpoint.manifest["numerics"] != NUMERICS:
            raise WrongError(
                f"{path} was trained with numerics version {checkpoint.manifest['numerics']}, this code has {NUMERICS}: check out that code"
            )
        self._key(node, checkpoint)
        self._dvc(node, checkpoint, place, claim)
        self._mlflow_copy(node, checkpoint, place)
        run_id = (node.facts.run_id if node.facts else node.id) if node else None
        segment = node.segment if node else None
        shown = self._shown(path) if place.path else str(place)
        sound = Sound(segment, run_id, step, checkpoint.digest, checkpoint.fingerprint, checkpoint.total_bytes, shown, place.kind)
        self.report.sound.append(sound)
        self.report.opened[sound.digest] = checkpoint
        self._tell(sound)
        return checkpoint

    def _earlier(self, node: Node | None, newest: Checkpoint, place: Place) -> None:
        """Verify the same run's earlier checkpoints in the same place: they must name the same parent."""
        if place.kind not in ("published", "work") or node is None:
            return
        for step in reversed([step for step in places.steps_in(newest.path.parent) if step < newest.step]):
            path = newest.path.with_name(places.step_folder(step))
            earlier = self._checkpoint(node, step, Place(place.kind, path), None)
            if earlier.parent != newest.parent:
                raise WrongError(
                    f"{path} began with step {earlier.parent.step}, digest {earlier.parent.digest[:12]}, "
                    f"but {newest.path.name} of the same segment with step {newest.parent.step}, digest {newest.parent.digest[:12]}"
                )

    def _key(self, node: Node | None, checkpoint: Checkpoint) -> None:
        key, facts = manifest_key(checkpoint.manifest), node.facts if node else None
        if node and facts and facts.key and key != facts.key:
            where = self._shown(facts.record) if facts.record else "its work directory or MLflow"
            raise WrongError(
                f"{checkpoint.path} is not of {node.name}: its manifest gives the key {key[:12]}, {where} has {facts.key[:12]}"
            )

    def _dvc(self, node: Node | None, checkpoint: Checkpoint, place: Place, claim: Claim | None) -> None:
        """Compare a published or imported checkpoint with what DVC has recorded."""
        path = _placed(checkpoint.path)
        kind = place.kind if place.kind != "folder" else self._kind(path)
        if kind not in ("published", "imported"):
            return
        md5s = md5s_of(path)
        if kind == "imported":
            check_import(self.project, self._shown(path), md5s)
            self._witnesses[checkpoint.digest] = f"{self._shown(path)}.dvc"
        else:
            stage = self._stage(path.parent.name)
            stage.check_step(checkpoint.step, md5s)
            if stage.is_recorded:
                self._witnesses[checkpoint.digest] = "dvc.lock"
        if claim is not None and claim.md5 and claim.folder == self._shown(path) and (found := tree_of(md5s)[0]) != claim.md5:
            raise WrongError(f"{claim.folder} has the md5 {found}, dvc.lock says that {claim.child} began with {claim.md5}")

    def _stage(self, segment: str) -> LockedStage:
        """Return what dvc.lock says of a segment, read once in a walk: the file grows with the project."""
        if segment not in self._stages:
            self._stages[segment] = LockedStage(self.project, segment)
        return self._stages[segment]

    def _kind(self, path: Path) -> str:
        for kind, folder in (("published", "checkpoints"), ("imported", "imports")):
            if path.parent.parent == (self.project / folder).resolve():
                return kind
        return "folder"

    def _mlflow_copy(self, node: Node | None, checkpoint: Checkpoint, place: Place) -> None:
        """Compare with MLflow's copy, if it has one and that is not what was just read."""
        copies = self.where.places(node, checkpoint.step) if node else []
        for copy in (copy for copy in copies if copy.kind == "mlflow" and copy != place):
            try:
                theirs = copy.manifest(self.scratch)
            except (CheckpointError, tracking.TrackingError) as error:
                self.report.warnings.append(f"MLflow's copy cannot be compared: {error}")
                continue
            if theirs.digest != checkpoint.digest:
                what = f"{self._shown(checkpoint.path)} is not the checkpoint that MLflow has ({copy})"
                raise WrongError(f"{what}: digest {checkpoint.digest}, there {theirs.digest}")
            if not theirs.path.joinpath(MANIFEST).samefile(checkpoint.path / MANIFEST):
                self._witnesses[checkpoint.digest] = "MLflow"

    def _run(self, node: Node, newest: Checkpoint) -> None:
        """Compare what git, DVC's lock and MLflow record of a run with its checkpoints."""
        facts = node.facts
        assert facts is not None
        recorded = places.read_json(facts.record) if facts.record else None
        if recorded is not None and recorded.get("key") != facts.key:
            raise WrongError(
                f"{self._shown(facts.record)} says that {node.name} has the key {recorded.get('key')}, its checkpoints have {facts.key}"
            )
        if facts.parent_digest not in (None, newest.parent.digest):
            where = self._shown(facts.record) if facts.record else "MLflow"
            raise WrongError(
                f"{where} says that {node.name} began with the digest {facts.parent_digest}, its checkpoints with {newest.parent.digest}"
            )
        if facts.info and (told := facts.info.tags.get("matwm.parent_digest")) not in (None, newest.parent.digest):
            raise WrongError(
                f"MLflow's tags say that {node.name} began with the digest {told}, its checkpoints with {newest.parent.digest}"
            )
        if facts.info and facts.info.key not in (None, facts.key):
            raise WrongError(
                f"MLflow's tags give {node.name} the key {facts.info.key}, {self._shown(facts.record or facts.work)} {facts.key}"
            )
        self._lock(node, facts)
        self.report.warnings += check_commit(self.project, facts.git, node.name)
        above = self.lineage.nodes.get(node.parent)
        if above and above.facts:
            self._drift(above, node)

    def _lock(self, node: Node, facts: Facts) -> None:
        stage = self._stage(facts.segment)
        try:
            params = read_params(self.project / places.PARAMS)
        except ConfigError as error:
            if facts.published and stage.is_recorded:
                stage.check()
                raise WrongError(f"{error.problems[0]}: it cannot be compared with dvc.lock") from None
            return
        # Without its run.json a run is not known to be the published one, but the lock knows what was trained with these parameters.
        if not facts.published and not (node.is_current and stage.describes(params)):
            return
        if not stage.is_recorded:
            self.report.warnings.append(f'dvc.lock has nothing of {node.name}: it was not trained by "dvc repro"')
            return
        stage.check()
        if isinstance(segments := params.get("segments"), dict) and facts.segment in segments:
            stage.check_params(params)
        else:
            self.report.warnings.append(f"params.yaml has no segment {facts.segment} any more")

    def _drift(self, parent: Node, child: Node) -> None:
        before, after = parent.facts, child.facts
        assert before is not None
        assert after is not None
        found = records.drifted(before.machine, after.machine)
        if before.git.get("code") and after.git.get("code") and before.git["code"] != after.git["code"]:
            found.append(f"code {str(before.git['code'])[:12]}, now {str(after.git['code'])[:12]}")
        if found:
            self.report.warnings.append(f"{child.name} was not trained as its parent {parent.name} was: {'; '.join(found)}")

    def _claim(self, node: Node | None, newest: Checkpoint) -> Claim:
        resolved = node.resolved if node else None
        facts = node.facts if node else None
        folder = resolved.origin.folder if resolved and resolved.origin.step == newest.parent.step else None
        md5 = self._stage(facts.segment).dependency(folder) if folder and facts and facts.published else None
        return Claim(node.name if node else str(newest.path), newest.parent, folder, md5)

    def _parent(self, node: Node | None) -> Node | None:
        return self.lineage.nodes.get(node.parent) if node else None

    def _root(self, claim: Claim) -> None:
        if claim.parent.digest != ROOT.digest:
            raise WrongError(f"{claim.child} began with a root of the digest {claim.parent.digest}, expected {ROOT.digest}")
        folder = self.project / places.ROOT_CHECKPOINT
        if not is_root(folder):
            raise WrongError(f"{places.ROOT_CHECKPOINT} is not the root of all lineages: restore it from git")
        sound = Sound(None, None, 0, ROOT.digest, "", (folder / "manifest.json").stat().st_size, places.ROOT_CHECKPOINT, "root")
        self.report.sound.append(sound)
        self._tell(sound)

    def _shown(self, path: Path | None) -> str:
        if path is None:
            return "MLflow"
        own, project = _placed(path), self.project.resolve()
        return own.relative_to(project).as_posix() if own.is_relative_to(project) else str(own)


def _placed(path: Path) -> Path:
    """Return a path without links above its last part."""
    return path.parent.resolve() / path.name
