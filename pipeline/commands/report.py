"""`matwm report SWEEP|RUN…`: holds trainings side by side."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from matwm import durable
from matwm.changes import as_yaml
from matwm.config import leaves
from pipeline import project as places
from pipeline import tracking
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.references import whole_run
from pipeline.project import ProjectError
from pipeline.report import tables
from pipeline.report.numbers import Training, gathered
from pipeline.report.page import page
from pipeline.run import Run


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "names", nargs="+", metavar="SWEEP|RUN|SEGMENT", help="a sweep stands for all its trials; seeds of a setting are one"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: reports/NAME)")
    parser.add_argument("--html", action="store_true", help="also one page with everything in it, which needs no other file")


def run(options: argparse.Namespace) -> int:
    """Write figures (PNG, SVG) and the table (Markdown, CSV, LaTeX) from what git has in metrics/, and print the table.

    Raises:
        ProjectError: there is no such training, or it has no metrics.
    """
    from pipeline.drawing import comparison
    from pipeline.drawing.figures import drawing, png
    from pipeline.report import build

    project = places.root()
    tracking.configure(project)
    catalog = Catalog(project)
    names = list(dict.fromkeys(name for text in options.names for name in _named(catalog, text)))
    settings = gathered(project, names)
    folder = options.out or project / "reports" / "+".join(options.names).replace("/", "+")[:80]
    folder.mkdir(parents=True, exist_ok=True)
    table = tables.rows(settings)
    written = {"scores.md": tables.markdown(table), "scores.csv": tables.as_csv(table), "scores.tex": tables.latex(table)}
    with drawing():
        figures = build.figures(settings)
        drawn = {name: (png(figure), comparison.svg(figure)) for name, figure in figures.items()}
    for name, text in written.items():
        places.write_text(folder / name, text)
    for name, (pixels, lines) in drawn.items():
        durable.replace(folder / f"{name.replace(' ', '_')}.png", pixels)
        durable.replace(folder / f"{name.replace(' ', '_')}.svg", lines)
    if options.html:
        vectors = {name[:1].upper() + name[1:]: lines for name, (_, lines) in drawn.items()}
        differing = _differing(catalog, names)
        text = page(
            f"Report of {', '.join(options.names)}", table, vectors, _episode(project, settings), differing, _lineage(catalog, names)
        )
        places.write_text(folder / "report.html", text)
    for sentence in catalog.trouble:
        sys.stderr.write(f"{sentence}\n")
    sys.stdout.write(f"{tables.markdown(table)}\nwritten to {_shown(folder)}\n")
    return 0


def _named(catalog: Catalog, text: str) -> list[str]:
    """Return the segments and trials that a word stands for."""
    if trials := [name for name in catalog.params.entries if name.startswith(f"{text}/")]:
        trained = [name for name in trials if (places.metrics_folder(catalog.project, name) / "run.json").is_file()]
        if left := len(trials) - len(trained):
            sys.stderr.write(f"{left} of {len(trials)} trials of sweep {text} are not trained yet, and are left out\n")
        if not trained:
            raise ProjectError(f'no trial of sweep {text} is trained yet: "matwm sweep run {text}"')
        return trained
    return [str(catalog.find(whole_run(text)).segment)]


def _episode(project: Path, settings: Mapping[str, Sequence[Training]]) -> tuple[str, Path] | None:
    """Return the training that is best by its first objective, of those with an animation, and its file."""
    found: list[tuple[float, str, Path]] = []
    for one in (one for group in settings.values() for one in group):
        file, objective = project / "plots" / one.name / "episode.gif", next(iter(one.objectives), None)
        if file.is_file():
            score = one.score(objective) if objective else None
            found.append((objective.goodness(score) if objective and score is not None else float("-inf"), one.name, file))
    return max(found, key=lambda one: one[0])[1:] if found else None


def _differing(catalog: Catalog, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the parameters that are not the same in all trainings of params.yaml, each training's value as text."""
    known = {name: catalog.params.graph[name].config for name in names if name in catalog.params.graph}
    values: dict[str, dict[str, str]] = {}
    for name, config in known.items():
        for path, value, _ in leaves(config):
            values.setdefault(path, {})[name] = as_yaml(value)
    return {path: found for path, found in values.items() if len(set(found.values())) > 1}


def _lineage(catalog: Catalog, names: Sequence[str]) -> str:
    lines: list[str] = []
    for name in names:
        run = catalog.find(name)
        above = [f"{one.name} at step {step}" for one, step in _ancestors(catalog, run)]
        lines.append(f"{run.name}: step {run.step}, from {' from '.join(above) or 'the root'}")
    return "\n".join(lines)


def _ancestors(catalog: Catalog, run: Run) -> list[tuple[Run, int | None]]:
    found: list[tuple[Run, int | None]] = []
    while (parent := catalog.parent(run)) is not None:
        found.append((parent, run.parent_step))
        run = parent
    return found


def _shown(folder: Path) -> str:
    here = Path.cwd()
    return folder.absolute().relative_to(here).as_posix() if folder.absolute().is_relative_to(here) else str(folder)
