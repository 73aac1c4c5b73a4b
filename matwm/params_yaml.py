"""Reads params.yaml and the presets into a `Config`, and says in sentences what is wrong with them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from matwm.config import Config, ConfigError, Section, SegmentConfig, SweepConfig
from matwm.sentences import sentences
from matwm.spelling import nearest
from matwm.yaml_text import TwofoldError, overlaid, read_yaml

SectionT = TypeVar("SectionT", bound=Section)
PRESETS = Path(__file__).parent / "presets"
LINEAGE = ("segments", "sweeps")
"""Keys of a file beside those of `Config`."""
SEGMENT_NAME = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
)  # a folder's name, and a word on command lines that must not look like an option


def parse_config(data: Mapping[str, Any], *, source: str = "params.yaml") -> Config:
    """Validate the sections of an experiment (without `segments` and `sweeps`).

    Raises:
        ConfigError: one sentence for each thing that is wrong.
    """
    return _parse(Config, {key: value for key, value in data.items() if key not in LINEAGE}, "", source)


def parse_segments(data: Mapping[str, Any], *, source: str = "params.yaml") -> dict[str, SegmentConfig]:
    """Validate the form of `segments`; what they point to is the pipeline's business.

    Raises:
        ConfigError: one sentence for each thing that is wrong.
    """
    segments = data.get("segments")
    if not isinstance(segments, Mapping) or not segments:
        raise ConfigError([f"{source}: segments is missing or empty: it needs at least s00: {{from: checkpoints/root, until: 10000}}"])
    return _parse_entries(SegmentConfig, "segments", segments, source)


def parse_sweeps(data: Mapping[str, Any], *, source: str = "params.yaml") -> dict[str, SweepConfig]:
    """Validate the form of `sweeps`, which older files do not have; `pipeline/params/sweeps.py` makes trials of them.

    Raises:
        ConfigError: one sentence for each thing that is wrong.
    """
    sweeps = data.get("sweeps")
    if sweeps is not None and not isinstance(sweeps, Mapping):
        raise ConfigError([f"{source}: sweeps is {sweeps!r}: expected a section with a sweep a key, or {{}}"])
    return _parse_entries(SweepConfig, "sweeps", sweeps or {}, source)


def read_params(path: str | Path) -> dict[str, Any]:
    """Read a parameter file as plain data, a preset with what it takes from its base.

    Raises:
        ConfigError: the file is missing, no mapping, not YAML, or says a key twice.
    """
    path = Path(path)
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise ConfigError([f'{path} {what}: write one with "matwm preset cpu-small"'])
    try:
        is_preset = path.resolve().parent == PRESETS.resolve()
        data = read_yaml(preset_text(path.stem) if is_preset else path.read_text(encoding="utf-8"))
    except TwofoldError as error:
        raise ConfigError([f"{path.name}: {problem}" for problem in error.problems]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([f"{path} is no UTF-8 text: line {line} has the byte 0x{error.object[error.start]:02x}"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError([f"{path} is not valid YAML: {' '.join(str(error).split())}"]) from None
    if not isinstance(data, dict):
        found = "is empty" if data is None else f"is {type(data).__name__}, not sections"
        raise ConfigError([f'{path} holds no sections (it {found}): write a complete one with "matwm preset cpu-small"'])
    return data


def load_config(path: str | Path) -> Config:
    """Read and validate a parameter file (without its segments).

    Raises:
        ConfigError: one sentence for each thing that is wrong.
    """
    return parse_config(read_params(path), source=str(path))


def restored_config(shaping: Mapping[str, Any], *, source: str) -> Config:
    """Return the configuration that a manifest holds; what shapes no training, or came with a later version, is that of `ci-tiny`.

    Its values are those of versions that did not have the key yet.

    Raises:
        ConfigError: this version does not know it; one sentence for each thing that is wrong.
    """
    return parse_config(load_config(preset_path("ci-tiny")).shaped_by(shaping), source=source)


def preset_path(name: str) -> Path:
    """Return the file of a preset.

    Raises:
        ConfigError: there is none of that name.
    """
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name not in names:
        raise ConfigError([f"there is no preset {name!r}{nearest(name, names)}"])
    return PRESETS / f"{name}.yaml"


def preset_text(name: str) -> str:
    """Return a preset as a complete params.yaml: where its own file names a `base`, it has only what differs from that preset.

    Raises:
        ConfigError: there is none of that name.
    """
    text = preset_path(name).read_text(encoding="utf-8")
    if found := _BASE.search(text):
        return overlaid(preset_text(found["name"]), text.replace(found[0], "", 1))
    return text


_BASE = re.compile(r"^base: (?P<name>\S+)\n\n?", re.MULTILINE)


def _parse_entries(schema: type[SectionT], section: str, entries: Mapping[Any, Any], source: str) -> dict[str, SectionT]:
    problems: list[str] = []
    parsed: dict[str, SectionT] = {}
    for name, entry in entries.items():
        if not isinstance(name, str):
            problems.append(f"{source}: {section}.{name}: the name is no text to YAML: put it in quotes")
            continue
        if not SEGMENT_NAME.fullmatch(name):
            problems.append(
                f"{source}: {section}.{name}: a {section[:-1]}'s name is made of letters, digits, '-' and '_', "
                "with a letter or digit first and 64 characters at most"
            )
            continue
        try:
            parsed[name] = _parse(schema, entry, f"{section}.{name}.", source)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return parsed


def _parse(schema: type[SectionT], data: Any, prefix: str, source: str) -> SectionT:
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        also_known = LINEAGE if schema is Config else ()  # A file has them too; they are parsed apart.
        raise ConfigError([f"{source}: {line}" for line in sentences(error, schema, prefix, also_known)]) from None
