"""Documents are as their readers need them: tables are tables, links lead somewhere, commands exist, and README.md is short.

GitHub shows a table without a head as text, and takes a line right behind one for its last row.
"""

import importlib.util
import re
import shlex
from itertools import groupby

import pytest
import yaml

from benchmarks.learning import REPOSITORY
from matwm.config import Config, PopulationConfig, RangeConfig, SearchConfig, SegmentConfig, SweepConfig
from matwm.params_yaml import load_config, preset_path
from pipeline import cli
from pipeline.commands import COMMANDS, parsed

PAGES = sorted(path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "docs").rglob("*.md"))
DOCUMENTS = ["README.md", *PAGES, "CHANGELOG.md", "benchmarks/RESULTS.md"]
RESULTS = ["benchmarks/results/scaling.md", "benchmarks/results/learning/diagnosis.md"]
PLACEHOLDERS = {"RUN@STEP": "s00@5000", "RUN": "s00", "NAME": "cpu-small", "R@S": "s00@5000"}


@pytest.fixture(scope="module")
def site():
    """The hooks of mkdocs.yml."""
    spec = importlib.util.spec_from_file_location("docs_site", REPOSITORY / "docs" / "_site" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(document):
    return (REPOSITORY / document).read_text(encoding="utf-8")


def without_code(text):
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def blocks(text, *languages):
    return [code for language, code in re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if language in languages]


def tables(text):
    """Return the blocks of lines without an empty one between them that have a row of a table."""
    filled = [list(lines) for is_filled, lines in groupby(text.splitlines(), key=bool) if is_filled]
    return [block for block in filled if any(line.startswith("|") for line in block)]


def assert_whole(found):
    for block in found:
        assert all(line.startswith("|") and line.endswith("|") for line in block), block[-1]
        assert set(block[1]) <= set("|-: "), block[0]
        assert len({line.replace("\\|", "").count("|") for line in block}) == 1, block[0]


@pytest.mark.parametrize("document", ["README.md", "docs/results.md", "docs/faults.md", "benchmarks/RESULTS.md", *RESULTS])
def test_documents_have_their_tables(document):
    assert tables(text_of(document))


@pytest.mark.parametrize("document", [*DOCUMENTS, *RESULTS])
def test_every_table_has_a_head_and_nothing_but_rows(document):
    assert_whole(tables(text_of(document)))


def test_the_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= 150


def anchors(document):
    """Return the anchors of a document's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text_of(document), flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [*DOCUMENTS, *RESULTS])
def test_links_lead_to_files_and_headings(document):
    text = without_code(text_of(document))
    for link in [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'src="([^"]+)"', text)]:
        if link.startswith(("https://", "http://")):
            continue
        target, _, anchor = link.partition("#")
        file = (REPOSITORY / document).parent / target if target else REPOSITORY / document
        assert file.exists(), link
        if anchor:
            assert anchor in anchors(file.resolve().relative_to(REPOSITORY)), link


def test_every_page_is_in_the_navigation():
    def pages(node):
        if isinstance(node, str):
            return [node]
        return [page for one in (node.values() if isinstance(node, dict) else node) for page in pages(one)]

    listed = pages(yaml.safe_load(text_of("mkdocs.yml"))["nav"])
    assert sorted(set(listed)) == sorted(listed)
    assert {page.removeprefix("docs/") for page in PAGES} <= set(listed)


def typed(document):
    """Return the `matwm` commands of a document's blocks."""
    lines = [line for code in blocks(text_of(document), "bash", "console") for line in code.splitlines()]
    parts = [part.strip() for line in lines for part in re.split(r"&&|\|\|", re.sub(r"\s(#\s.*|> ?\S+)", "", line.removeprefix("$ ")))]
    return [shlex.split(part)[1:] for part in parts if re.match(r"(\.venv/bin/)?matwm ", part)]


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if typed(document)])
def test_the_commands_that_documents_show_are_understood(document, monkeypatch):
    def refuse(parser, message):
        raise AssertionError(f"{parser.prog}: {message}")

    monkeypatch.setattr("argparse.ArgumentParser.error", refuse)
    for name, *words in typed(document):
        if name in COMMANDS:
            parsed(name, [PLACEHOLDERS.get(word, word) for word in words])
        else:
            assert name in (*cli.HELP, "--version")


def test_the_tutorial_shows_commands():
    assert [words[0] for words in typed("docs/tutorial.md")].count("continue") == 3


def test_pages_ask_only_for_what_the_site_generates(site):
    asked = [name for page in PAGES for name in re.findall(r"<!-- generated: (\w+) -->", text_of(page))]
    assert sorted(asked) == sorted(site.GENERATED)


def test_the_parameters_are_those_of_the_schema(site):
    made = site.parameters()
    assert_whole(tables(made))
    rows = {}
    for section in made.split("## ")[1:]:
        title, *lines = section.splitlines()
        for cells in [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]:
            rows[cells[0].strip("`") if title == "params.yaml itself" else f"{title}.{cells[0].strip('`')}"] = cells[1:]

    def keys(model, prefix=""):
        for name, info in model.model_fields.items():
            child, path = site._model(info), f"{prefix}{info.alias or name}"
            is_list = isinstance(child, type) and info.annotation is not child
            if child is None or is_list:
                yield path
            if child is not None:
                yield from keys(child, f"{path}.")

    known = [*keys(Config), *keys(SegmentConfig, "segments.NAME."), *keys(SweepConfig, "sweeps.NAME.")]
    known += [*keys(SearchConfig, "sweeps.NAME.search."), *keys(RangeConfig, "sweeps.NAME.search.space.KEY.")]
    known += keys(PopulationConfig, "sweeps.NAME.population.")
    assert sorted(rows) == sorted(known)
    meaning, kind, branch, *values = rows["replay.capacity"]
    assert (kind, branch) == ("integer, ≥ 2", "adapt") and "rows kept" in meaning
    assert values == [f"`{load_config(preset_path(name)).replay.capacity}`" for name in site.PRESETS]
    assert rows["world_model.unimix"][1] == "number, ≥ 0, < 1" and rows["seed"][1] == "integer, ≥ 0, < 2^63"
    assert rows["run.device"][1] == "`cpu` or `cuda`"


def test_the_commands_are_those_of_the_parsers(site, capsys):
    made = site.commands()
    assert_whole(tables(made))
    assert re.findall(r"^## matwm (\S+)$", made, re.MULTILINE) == list(COMMANDS)
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            cli.main([name, "--help"])
        told = re.findall(r"^ +(?:-h, )?(--[\w-]+)", capsys.readouterr().out, re.MULTILINE)
        section = made.partition(f"## matwm {name}\n")[2].partition("\n## ")[0]
        shown = re.findall(r"^\| (?:`|<code>)(--[\w-]+)", section, re.MULTILINE)
        assert shown == [flag for flag in told if flag != "--help"], name


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("docs/results.md", "../benchmarks/RESULTS.md#the-log", "benchmarks/RESULTS.md#the-log"),
        ("docs/recipes/trace.md", "../mlflow_child.png", "../mlflow_child.png"),
        ("docs/recipes/trace.md", "../../CHANGELOG.md", "../CHANGELOG.md"),
        ("benchmarks/RESULTS.md", "../docs/results.md", "../results.md"),
        ("benchmarks/RESULTS.md", "results/scaling.md", "results/scaling.md"),
        ("docs/tutorial.md", "https://example.org/x.md", "https://example.org/x.md"),
        ("CHANGELOG.md", "README.md", "index.md"),
    ],
)
def test_links_lead_where_the_site_has_files(site, page, link, expected):
    assert site.rewritten(f"a [text]({link}) b", page) == f"a [text]({expected}) b"
