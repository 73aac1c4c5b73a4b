"""Says where the checkpoints of a lineage lie: published, imported, in work directories, in MLflow; and which one a person means."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matwm.checkpoint import Checkpoint, CheckpointError, read_manifest
from pipeline import lookup, stores, tracking
from pipeline import project as places
from pipeline.lineage import Lineage, Node
from pipeline.segments import manifest_key


@dataclass(frozen=True)
class Place:
    """One place where a checkpoint lies."""

    kind: str
    """`published`, `imported`, `work`, `mlflow`, or `folder` for one that somebody named."""
    path: Path | None
    """Its folder; None if it lies on a server."""
    run_id: str | None = None
    step: int = 0

    def __str__(self) -> str:
        return str(self.path) if self.path else f"MLflow, run {self.run_id}, step {self.step}"

    def manifest(self, scratch: Path) -> Checkpoint:
        """Return the checkpoint with its manifest verified; of one on a server, only the manifest is brought, to `scratch`.

        Raises:
            CheckpointError, TrackingError: it is damaged, or cannot be had.
        """
        return read_manifest(self.path) if self.path else stores.MlflowStore().peek(str(self.run_id), self.step, scratch / "peek")

    def whole(self, scratch: Path) -> Path:
        """Return its folder; one on a server is brought to `scratch`, every byte verified.

        Raises:
            CheckpointError, TrackingError: it is damaged, or cannot be had.
        """
        return self.path or stores.MlflowStore().pull(str(self.run_id), self.step, scratch / str(self.run_id)).path


@dataclass(frozen=True)
class Target:
    """A checkpoint that somebody named."""

    node: Node | None
    """The run that made it, None if nothing here says which."""
    step: int
    places: tuple[Place, ...]
    """Where it lies, the first being meant; empty if it is known and not to be had."""


class Whereabouts:
    """Where checkpoints lie. What MLflow lists is asked once a run; that it does not answer is told to `lineage.trouble`."""

    def __init__(self, lineage: Lineage) -> None:
        self.lineage, self.project = lineage, lineage.project
        self._listed: dict[str, dict[int, Place]] = {}

    def places(self, node: Node, step: int) -> list[Place]:
        """Return where a node's checkpoint of a step lies, the published one first."""
        found = [Place(kind, folder / places.step_folder(step)) for kind, folder in self._folders(node)]
        found = [place for place in found if place.path and is_there(place.path)]
        return found + [place for number, place in self._in_mlflow(node).items() if number == step]

    def steps(self, node: Node) -> list[int]:
        """Return the steps of a node that have a checkpoint somewhere, or had one that git records; ascending."""
        found = {step for _, folder in self._folders(node) for step in places.steps_in(folder)} | set(self._in_mlflow(node))
        recorded = [node.facts.step] if node.facts and node.facts.published and node.facts.step else []
        return sorted(found.union(recorded))

    def home(self, node: Node, step: int) -> list[int]:
        """Return the steps that lie beside a node's checkpoint, in the first place that has it."""
        for _, folder in self._folders(node):
            if is_there(folder / places.step_folder(step)):
                return places.steps_in(folder)
        return sorted(self._in_mlflow(node))

    def by_digest(self, step: int, digest: str) -> Iterator[Place]:
        """Yield the folders here that hold the checkpoint with a digest, whoever made it."""
        name = places.step_folder(step)
        there = {
            "published": sorted(self.project.glob(f"checkpoints/*/{name}")),
            "imported": sorted(self.project.glob(f"imports/*/{name}")),
            "work": [work / "checkpoints" / name for work in places.work_folders(self.project, f"checkpoints/{name}")],
        }
        for kind, paths in there.items():
            for path in paths:
                try:
                    if read_manifest(path).digest == digest:
                        yield Place(kind, path)
                except CheckpointError:
                    continue

    def target(self, text: str) -> Target:
        """Return the checkpoint that RUN, RUN@STEP, SEGMENT, SEGMENT@STEP (a number, latest or final) or a folder stands for.

        Raises:
            ProjectError: there is no such run or step; the message names what there is.
            CheckpointError: the folder holds no checkpoint, or its manifest is damaged.
        """
        if is_folder(text) and (os.sep in text or (Path(text) / "manifest.json").is_file()):
            checkpoint = read_manifest(Path(os.path.abspath(text)))  # noqa: PTH100  # a link stays a link
            return Target(self.maker(checkpoint.manifest, checkpoint.path), checkpoint.step, (Place("folder", checkpoint.path),))
        name, wanted = lookup.split_reference(text)
        node = self.lineage.find(name, is_trained=True)
        step = lookup.chosen(wanted, self.steps(node), node.name, node.state)
        return Target(node, step, tuple(self.places(node, step)))

    def maker(self, manifest: Mapping[str, Any], path: Path | None = None) -> Node | None:
        """Return the run whose segment key a manifest gives, of several the one whose folder it lies in."""
        key, own = manifest_key(manifest), path.parent.resolve() if path else None
        nodes = [node for node in self.lineage.nodes.values() if node.facts and node.facts.key == key]
        inside = [node for node in nodes if own and any(own == folder.resolve() for _, folder in self._folders(node))]
        return next(iter([*inside, *(node for node in nodes if node.is_current), *nodes]), None)

    def _folders(self, node: Node) -> list[tuple[str, Path]]:
        found = [("published", node.facts.published)] if node.facts and node.facts.published else []
        run_id = node.facts.run_id if node.facts else node.id
        found += [("imported", self.project / "imports" / run_id)] if run_id and "/" not in run_id else []
        return found + ([("work", node.facts.work / "checkpoints")] if node.facts and node.facts.work else [])

    def _in_mlflow(self, node: Node) -> dict[int, Place]:
        info = node.facts.info if node.facts else None
        if info is None:
            return {}
        if node.id not in self._listed:
            store = stores.MlflowStore()
            try:
                folder = store.folder(info.run_id)
                steps = store.steps(info.run_id)
            except tracking.TrackingError as error:
                self.lineage.trouble.append(str(error))
                folder, steps = None, []
            self._listed[node.id] = {
                step: Place("mlflow", folder and folder / places.step_folder(step), info.run_id, step) for step in steps
            }
        return self._listed[node.id]


def is_folder(text: str) -> bool:
    """Return whether somebody named a folder; what is too long for a name is none."""
    return os.path.isdir(text)  # noqa: PTH112  # Path.is_dir raises there


def is_there(folder: Path) -> bool:
    """Return whether a folder claims to be a checkpoint."""
    return os.path.lexists(folder / "manifest.json")
