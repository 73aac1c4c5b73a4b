"""Says before anything is trained what each segment will take, and whether this machine's disks and memory will hold it."""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matwm.config import ConfigError
from matwm.manifest import CheckpointError
from pipeline import dvc_files, runs
from pipeline import project as places
from pipeline.addresses import database_of
from pipeline.estimates import estimate
from pipeline.params.retention import retained
from pipeline.params.segments import ResolvedSegment
from pipeline.wording import readable

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Forecast:
    """What the segments that are not trained yet will take."""

    takes: dict[str, str]
    """What each will take, in words; nothing for a segment that is trained."""
    warnings: list[str]
    bytes: dict[str, dict[str, int]]
    """The same in numbers: checkpoints, each, replay and disk; memory_at_least, memory_roughly_more."""


def forecast(project: Path, graph: Mapping[str, ResolvedSegment], params: Mapping[str, Any], *, remembers: bool = True) -> Forecast:
    """Return what the segments will take, with a sentence for each disk or memory that will not hold it.

    With `remembers`, sizes of networks are kept in `.matwm` for the next time.

    Raises:
        ConfigError: a segment needs more memory than this machine has, whatever else happens.
    """
    stages = dvc_files.lock(project)
    takes: dict[str, str] = {}
    numbers: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    warnings = list(_idle_rules(graph))
    needed: dict[Path, int] = {}
    for name, segment in graph.items():
        if dvc_files.is_trained(stages, name, params):
            continue
        found = estimate.sizes(segment.config, project if remembers else None)
        disk = estimate.disk(segment, _made(project, segment, graph), found)
        memory = estimate.memory(segment.config, segment.until, found)
        for place, size in _copies(project, segment, disk):
            needed[place] = needed.get(place, 0) + size
        least = sum(memory.least.values())
        numbers[name] = {"checkpoints": disk.checkpoints, "each": disk.each, "replay": disk.replay, "disk": disk.total}
        numbers[name] |= {"memory_at_least": int(least), "memory_roughly_more": int(memory.rough)}
        takes[name] = (
            f"{disk.checkpoints} checkpoint{'s' * (disk.checkpoints != 1)} to make, {readable(disk.each)} each"
            f"{f' and {readable(disk.replay)} of replay' if disk.replay else ''}, {readable(disk.total)} on disk; "
            f"{readable(least)} of memory and about {readable(memory.rough)} for activations, snapshot and libraries"
        )
        sentence = _too_much(name, memory, available_memory())
        (problems if sentence and least > available_memory() else warnings).extend([sentence] if sentence else [])
    if problems:
        raise ConfigError(problems)
    return Forecast(takes, [*warnings, *_full_disks(needed, graph)], numbers)


def available_memory() -> int:
    """Return the bytes of memory and swap that this machine, or the container, may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CGROUP_LIMITS:
        try:
            return min(total + _swap(), int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return total + _swap()


def _too_much(name: str, memory: estimate.Memory, available: int) -> str | None:
    least = sum(memory.least.values())
    if least + memory.rough <= available:
        return None
    sure = least > available
    amount = f"at least {readable(least)}" if sure else f"roughly {readable(least + memory.rough)}"
    return (
        f"params.yaml: segment {name} needs {amount} of memory, and this machine has {readable(available)}: "
        f"the largest part is {memory.largest}, {readable(memory.least[memory.largest])}"
    )


def _full_disks(needed: Mapping[Path, int], graph: Mapping[str, ResolvedSegment]) -> Iterator[str]:
    """Yield a sentence for each file system without room; folders on the same one are added up."""
    devices: dict[int, tuple[Path, int]] = {}
    for place, size in needed.items():
        there = _existing(place)
        first, sum_so_far = devices.get(there.stat().st_dev, (there, 0))
        devices[there.stat().st_dev] = (first, sum_so_far + size)
    for place, size in devices.values():
        free = shutil.disk_usage(place).free
        if size > free:
            interval = min(segment.config.run.save_interval for segment in graph.values())
            yield (
                f"params.yaml: the checkpoints still to be made need about {readable(size)}, and {readable(free)} are free at {place}: "
                f'raise run.save_interval (now {interval}), prune while it trains ("matwm prune" with a retention), or use another disk'
            )


def _copies(project: Path, segment: ResolvedSegment, disk: estimate.Disk) -> Iterator[tuple[Path, int]]:
    """Yield where bytes of checkpoints will lie, each inode once: one inode serves all names on one file system."""
    work = places.state_folder(project)
    yield work, disk.total
    database = database_of(runs.tracking_uri(project))
    if database is not None and not _same_disk(work, database.parent):
        yield database.parent, disk.total
    cache, can_link = dvc_files.cache_folder(project), dvc_files.links(project)
    published = _published_share(segment) * disk.checkpoints * disk.each + disk.replay
    if not can_link or not _same_disk(work, cache):
        yield cache, int(published)
    if not _same_disk(work, project) or (not can_link and _same_disk(project, cache)):
        yield project / "checkpoints", int(published)


def _published_share(segment: ResolvedSegment) -> float:
    policy = segment.config.retention
    kept = len(retained(segment.saves, policy, segment.needed, [], start=segment.origin.step))
    kept += policy.keep_best * max(1, len(segment.config.objectives))
    return min(1.0, kept / len(segment.saves))


def _made(project: Path, segment: ResolvedSegment, graph: Mapping[str, ResolvedSegment]) -> int:
    """Return the newest step that the segment's work directory has already, 0 if it has none."""
    from pipeline.job import Job, open_start

    try:
        work = Job(project, segment, open_start(project, segment, graph), None).work
    except (places.ProjectError, CheckpointError):
        return 0
    return max((step for step in places.steps_in(work / "checkpoints") if step <= segment.until), default=0)


def _idle_rules(graph: Mapping[str, ResolvedSegment]) -> Iterator[str]:
    for name, segment in graph.items():
        policy = segment.config.retention
        if policy.keep_last is None and (policy.keep_every or policy.keep_best):
            idle = "keep_every" if policy.keep_every else "keep_best"
            yield (
                f"params.yaml: retention.{idle} changes nothing in segment {name} as long as retention.keep_last is null, "
                "which keeps every checkpoint: set keep_last to a number"
            )


def _same_disk(one: Path, other: Path) -> bool:
    return _existing(one).stat().st_dev == _existing(other).stat().st_dev


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _swap() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("SwapTotal:")), 0)
