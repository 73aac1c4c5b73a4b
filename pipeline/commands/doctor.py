"""`matwm doctor`: finds what is set up wrongly, says what to do, and mends what it can."""

import argparse
import json
import sys

from pipeline import project as places
from pipeline.doctor import Diagnosis, examine


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--fix", action="store_true", help="mend what can be mended without losing anything")
    parser.add_argument("--deep", action="store_true", help="hash everything in DVC's cache, not a sample")
    parser.add_argument("--json", action="store_true", help="as a list of objects")


def run(options: argparse.Namespace) -> int:
    """Return 1 if something is wrong, 0 if nothing is, or if there are only hints."""
    found = examine(places.root(), is_deep=options.deep, is_fixing=options.fix)
    if options.json:
        sys.stdout.write(json.dumps([_as_json(one) for one in found], indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("".join(map(_for_people, found)) or "no problems found\n")
    return int(any(one.is_problem for one in found))


def _for_people(one: Diagnosis) -> str:
    kind = "mended " if one.is_mended else "hint   " if one.finding.is_hint else "PROBLEM"
    lines = [
        f"{kind} {one.finding.what} [{one.check}]",
        f"        why: {one.finding.why}",
        f"        do:  {one.tried if one.is_mended else one.finding.remedy}",
    ]
    if one.tried and not one.is_mended:
        lines.append(f"        tried: {one.tried}")
    return "\n".join(lines) + "\n"


def _as_json(one: Diagnosis) -> dict[str, object]:
    return {
        "check": one.check,
        "severity": "hint" if one.finding.is_hint else "problem",
        "finding": one.finding.what,
        "why": one.finding.why,
        "remedy": one.finding.remedy,
        "can_fix": one.finding.mend is not None,
        "mended": one.tried if one.is_mended else None,
    }
