"""Orders runs into a tree: each below the run whose checkpoint it starts from. Walked by loops: a chain may have thousands of runs."""

from collections.abc import Iterable, Iterator, Mapping

from pipeline.run import Run

ROOT_ID = "root"


class Lineage:
    """Runs by ID, and who is below whom."""

    def __init__(self, runs: Iterable[Run], parents: Mapping[str, str]) -> None:
        """`parents`: the ID of the parent by a run's ID, nothing for what starts from the root.

        Tags can say anything: of runs that lead back to themselves, the first begins at the root.
        """
        self.runs = {run.id: run for run in runs}
        self._parents = dict(parents)
        self._cut_circles()
        self._children: dict[str, list[Run]] = {}
        for run in self.runs.values():
            self._children.setdefault(self.parent_id(run), []).append(run)
        for below in self._children.values():
            below.sort(key=lambda run: (run.parent_step or 0, not run.is_current))

    def parent_id(self, run: Run) -> str:
        """Return the ID of a run's parent, `root` for none."""
        return self._parents.get(run.id, ROOT_ID)

    def parent(self, run: Run) -> Run | None:
        """Return the run whose checkpoint a run starts from, None at a root."""
        return self.runs.get(self.parent_id(run))

    def children(self, run_id: str = ROOT_ID) -> list[Run]:
        """Return what starts from a run's checkpoints, by step; the order is that of params.yaml, then that of time."""
        return self._children.get(run_id, [])

    def ancestors(self, run: Run) -> list[Run]:
        """Return the runs from a root down to this one."""
        line = [run]
        while (parent := self.parent(line[-1])) is not None:
            line.append(parent)
        return line[::-1]

    def walk(self, run_id: str = ROOT_ID, depth: int = 0) -> Iterator[tuple[Run, int]]:
        """Yield everything below a run with its depth, parents first."""
        left = [(child, depth) for child in reversed(self.children(run_id))]
        while left:
            run, level = left.pop()
            yield run, level
            left += [(child, level + 1) for child in reversed(self.children(run.id))]

    def _cut_circles(self) -> None:
        order = {run_id: number for number, run_id in enumerate(self.runs)}
        done: set[str] = set()
        for run_id in self.runs:
            path: dict[str, None] = {}
            at: str | None = run_id
            while at is not None and at not in done and at not in path:
                path[at] = None
                at = self._parents.get(at)
            if at is not None and at in path:
                names = list(path)
                del self._parents[min(names[names.index(at) :], key=order.__getitem__)]
            done |= path.keys()
