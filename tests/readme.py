"""What the documentation shows, as code."""

from pathlib import Path
from typing import Any

import yaml

RECIPES = Path(__file__).parents[1] / "docs" / "recipes"


def own_environment() -> tuple[str, dict[str, Any]]:
    """Return the example of an environment of one's own: the contents of meeting.py, and what params.yaml says of it."""
    after = (RECIPES / "environment.md").read_text(encoding="utf-8").partition("<!-- meeting.py -->\n```python\n")[2]
    code, _, rest = after.partition("```\n")
    section = rest.partition("```yaml\n")[2].partition("```\n")[0]
    return code, yaml.safe_load(section)["env"]


def example(form: str) -> str:
    """Return the example of an exported file of a format."""
    return (RECIPES / "policy.md").read_text(encoding="utf-8").partition(f"<!-- policies.{form} -->\n```python\n")[2].partition("```\n")[0]
