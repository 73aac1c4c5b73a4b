"""Says what an imported checkpoint (`imports/<run>/step_…`) was trained with, and whether params.yaml says the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matwm.changes import Change, changes
from matwm.config import Config, ConfigError
from matwm.manifest import MANIFEST
from matwm.params_yaml import parse_config
from pipeline import project as places


class ImportedError(Exception):
    """What is wrong with an imported checkpoint, as a sentence goes on after `segments.<name>`."""


def record(project: Path, folder: str) -> Path:
    """Return where `matwm continue` puts the manifest of an imported checkpoint for git: beside DVC's pointer."""
    return project / f"{folder}.json"


def manifest(project: Path, folder: str) -> dict[str, Any] | None:
    """Return the manifest of an imported checkpoint, None if it is not here.

    Imports of earlier versions have no record in git: their manifest is only in the checkpoint itself.
    """
    return places.read_json(record(project, folder)) or places.read_json(project / folder / MANIFEST)


def config(project: Path, folder: str, base: Config) -> Config:
    """Return an imported checkpoint's configuration: what shapes training from its manifest, the rest from the base sections.

    Raises:
        ImportedError: the checkpoint is not here, or its values are no configuration of this version.
    """
    found = manifest(project, folder)
    if found is None:
        if (project / f"{folder}.dvc").is_file():
            raise ImportedError(f'.from is {folder!r}, whose files are not here: run "dvc pull {folder}.dvc"')
        raise ImportedError(f'.from is {folder!r}, which does not exist: "matwm continue RUN@STEP --until N" imports a checkpoint')
    return from_manifest(found, base, f".from is {folder!r}")


def from_manifest(found: Mapping[str, Any], base: Config, subject: str) -> Config:
    """Return the configuration of a checkpoint that was trained elsewhere (see `config`).

    Raises:
        ImportedError: its values are no configuration of this version; the sentence begins with `subject`.
    """
    try:
        return parse_config(base.shaped_by(found["config"]), source="manifest.json")
    except (ConfigError, KeyError, TypeError) as error:
        why = str(error).replace("\n", "; ")
        raise ImportedError(f"{subject}, whose manifest holds no configuration that this version knows: {why}") from None


def check_base(folder: str, trained: Config, expected: Config) -> None:
    """Refuse base sections that say something else than the imported checkpoint; both configurations have the segment's override.

    Raises:
        ImportedError: with every difference.
    """
    if found := [change for change in changes(trained, expected) if change.shapes]:
        raise ImportedError(
            f".from is {folder!r}, which was trained with other values: {differences(found)}: make params.yaml say the same"
        )


def differences(found: list[Change]) -> str:
    """Name values that a checkpoint and params.yaml disagree about."""
    return ", ".join(f"{change.path} (there {change.before!r}, in params.yaml {change.after!r})" for change in found)
