"""Compares what is here with what DVC and git have recorded of it."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from matwm.errors import UserError
from matwm.tree_diff import differing
from pipeline import dvc_files, source_code
from pipeline import project as places
from pipeline.stores.folder_hash import md5s_of, tree_of


class RecordError(UserError):
    """Something is not as it was recorded; the message is one sentence that names it and the way out."""


class LockedStage:
    """What dvc.lock says of one segment's training."""

    def __init__(self, project: Path, segment: str) -> None:
        stages = dvc_files.lock(project)
        if not stages and (project / "dvc.lock").exists():
            raise RecordError(f"dvc.lock cannot be read: {_CHECKOUT.format('dvc.lock')}")
        self._project, self._segment = project, segment
        self._stage, (self._folder, self._start) = dvc_files.stage_of(segment), dvc_files.output_of(segment)
        self._entry: dict[str, Any] | None = stages.get(self._stage)
        self._judged: dict[str, Any] = stages.get(f"evaluate@{segment}") or {}
        self._output = dvc_files.locked_output(self._entry or {}, self._folder)
        if self._entry is not None and self._output is None:
            raise RecordError(f"dvc.lock: {self._stage} has no {self._folder}: {_CHECKOUT.format('dvc.lock')}")
        self._listing = dvc_files.listing(project, self._output)

    @property
    def is_recorded(self) -> bool:
        """True if the lock has the segment's checkpoints."""
        return self._output is not None

    def dependency(self, folder: str) -> str | None:
        """Return the md5 of the checkpoint that it began with."""
        return next((dep.get("md5") for dep in dvc_files.listed(self._entry or {}, "deps") if dep.get("path") == folder), None)

    def check_step(self, step: int, md5s: Mapping[str, str]) -> None:
        """Compare one published checkpoint with DVC's listing, if that is in the cache.

        Raises:
            RecordError: a file differs, is missing or was added.
        """
        if self._listing is not None:
            folder = f"{self._start}{places.step_folder(step)}/"
            listed = {name: md5 for name, md5 in self._listing.items() if name.startswith(folder)}
            _compare(self._folder, listed, {f"{folder}{name}": md5 for name, md5 in md5s.items()})

    def check(self) -> None:
        """Compare everything that the stages of the segment left with the lock.

        Raises:
            RecordError: something differs.
        """
        folder = self._folder
        if self._output and (self._project / folder).is_dir():
            found = md5s_of(self._project / folder)
            if self._listing is not None:
                _compare(folder, self._listing, found)
            if (tree := tree_of(found)[0]) != self._output:
                raise RecordError(f"{folder} has the md5 {tree}, dvc.lock says {self._output}: {_RESTORE}")
        judged = next((dep.get("md5") for dep in dvc_files.listed(self._judged, "deps") if dep.get("path") == folder), None)
        if judged not in (None, self._output):
            raise RecordError(
                f"dvc.lock: evaluate@{self._segment} judged {folder} with the md5 {judged}, train@{self._segment} has {self._output}"
            )
        for out in [*dvc_files.listed(self._entry or {}, "outs"), *dvc_files.listed(self._judged, "outs")]:
            if str(out.get("path")).startswith("metrics/"):
                self._check_file(out["path"], out.get("md5"))

    def describes(self, params: Mapping[str, Any]) -> bool:
        """Return whether it is these parameters that the lock says were trained with."""
        return self._entry is not None and next(dvc_files.changed_params(self._entry, params), None) is None

    def check_params(self, params: Mapping[str, Any], numerics: int) -> None:
        """Compare the parameters in the lock with params.yaml, and its version of the numerics with the checkpoint's.

        Raises:
            RecordError: one differs.
        """
        for path, before, now in dvc_files.changed_params(self._entry or {}, params, numerics):
            where = places.MANIFEST if path == "NUMERICS" else places.PARAMS
            # To `differing` what is absent is null, which to DVC it is not.
            deeper, (old, new) = next(iter(differing({path: before}, {path: now}).items()), (path, (before, now)))
            raise RecordError(
                f"{where}: {deeper} is {'absent' if new is dvc_files.ABSENT else repr(new)}, but dvc.lock says that {self._segment} "
                f'was trained with {old!r}: restore it, or run "matwm repro"'
            )

    def _check_file(self, name: str, expected: str | None) -> None:
        path = self._project / name
        try:
            found = tree_of(md5s_of(path))[0] if path.is_dir() else hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        except OSError:
            raise RecordError(f"{name} is missing, though dvc.lock has it: {_CHECKOUT.format(name)}") from None
        if expected not in (None, found):
            raise RecordError(f"{name} has the md5 {found}, dvc.lock says {expected}: it was changed afterwards; {_CHECKOUT.format(name)}")


_RESTORE = '"dvc checkout --force" or "dvc pull --force" brings back what was recorded'
_CHECKOUT = '"git checkout {}" brings it back'


def check_import(project: Path, folder: str, md5s: Mapping[str, str]) -> None:
    """Compare an imported checkpoint with its .dvc file.

    Raises:
        RecordError: it differs, or there is no such file.
    """
    try:
        data = yaml.safe_load((project / f"{folder}.dvc").read_text(encoding="utf-8"))
        expected = data["outs"][0]["md5"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, IndexError):
        raise RecordError(f"{folder}.dvc is missing or damaged: {_CHECKOUT.format(f'{folder}.dvc')}") from None
    if (listed := dvc_files.listing(project, expected)) is not None:
        _compare(folder, listed, md5s)
    if (found := tree_of(md5s)[0]) != expected:
        raise RecordError(f"{folder} has the md5 {found}, {folder}.dvc says {expected}: {_RESTORE}")


def check_commit(project: Path, git: Mapping[str, Any], who: str) -> list[str]:
    """Look for the commit that a run was trained on; return what cannot be said of it.

    Raises:
        RecordError: this repository has no such commit.
    """
    commit, dirty = git.get("commit"), git.get("dirty")
    if not commit:
        known = git.get("code")
        return [
            f"{who} was trained outside of git: its code is known by digest only"
            if known
            else f"no record here says on which code {who} was trained"
        ]
    if not source_code.COMMIT.fullmatch(str(commit)):
        raise RecordError(f"{who} was trained on the commit {commit!r}, which is none")
    if source_code.git(project, "rev-parse", "--git-dir") is None:
        return [f"this is no git repository: the commit {commit[:12]} of {who} cannot be looked for"]
    if source_code.git(project, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        missing = f"{who} was trained on the commit {commit[:12]}, which this repository does not have"
        if source_code.git(project, "rev-parse", "--is-shallow-repository") == "true":
            return [f'{missing}: it is a shallow clone ("git fetch --unshallow")']
        raise RecordError(f'{missing}: "git fetch" it from where it was trained')
    if dirty is not False:
        return [
            f"{who} was trained on the commit {commit[:12]} {'with changes that are not in it' if dirty else 'and nobody knows what else'}"
        ]
    is_installed = places.numerics_file(project) == places.NUMERICS_FILE  # Then matwm is no part of the commit.
    if git.get("code") not in (None, source_code.code_digest() if is_installed else code_at(project, commit)):
        whose = "the matwm that is installed" if is_installed else f"its commit {commit[:12]}"
        return [f"{who} was trained by code (digest {str(git['code'])[:12]}) that is not that of {whose}"]
    return []


@cache
def code_at(project: Path, commit: str) -> str | None:
    """Return what `source_code.code_digest` gives for the code of a commit."""
    data = source_code.git_output(project, "archive", "--format=tar", commit, "matwm", "pipeline")
    if data is None:
        return None
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {Path(member.name): archive.extractfile(member) for member in archive.getmembers() if member.isfile()}
    return source_code.digest_of_code({path: file.read() for path, file in members.items() if file})


def _compare(folder: str, listed: Mapping[str, str], found: Mapping[str, str]) -> None:
    for name in sorted({*listed, *found}):
        if name not in found:
            raise RecordError(f'{folder}/{name} is missing, though DVC has recorded it: run "dvc pull" or "dvc checkout"')
        if name not in listed:
            raise RecordError(f"{folder}/{name} is not among what DVC has recorded: {_RESTORE}")
        if listed[name] != found[name]:
            raise RecordError(f"{folder}/{name} has the md5 {found[name]}, DVC has recorded {listed[name]}: {_RESTORE}")
