"""Takes addresses of MLflow stores apart, builds those of SQLite databases, and refuses what can never be one."""

import os
import re
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from matwm.errors import UserError
from pipeline.masking import HIDDEN, masked

VARIABLE = "MLFLOW_TRACKING_URI"
DEFAULT = "sqlite:///mlflow.db"
"""The database that `mlflow ui` without flags shows."""
DATABASES = ("postgresql", "mysql", "mssql")
SERVERS = ("http", "https")
SQLITE_OPTIONS = {"timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements", "uri"}
"""What Python's sqlite3 takes from the query of an address without `file:`."""
EXAMPLES = "unset it, or name a database (sqlite:///mlflow.db) or a server (http://host:5000)"
_HOST = re.compile(r"(localhost|[\w-]+(\.[\w-]+)*:\d+)(/.*)?")


class TrackingError(UserError):
    """MLflow does not do what was asked; the message is one sentence that names the store."""


def store_address(chosen: str | None, home: Path) -> str:
    """Return the address of the MLflow store that MLFLOW_TRACKING_URI, if set, names; a database's path is absolute.

    Raises:
        TrackingError: it can never work; the sentence says what was probably meant.
    """
    chosen = (chosen or DEFAULT).strip()
    if _kind(chosen) == "sqlite":
        return _sqlite(chosen, home)
    problem = _problem(chosen)
    if problem:
        raise TrackingError(f"{VARIABLE} is {_shown(chosen)}, {problem}")
    return chosen


def sqlite_address(database: Path | str, **query: str) -> str:
    """Return the address of a database file, whatever characters its path has."""
    from sqlalchemy import URL

    path = database if isinstance(database, str) else database.as_posix()
    uri = URL.create("sqlite", database=path, query=query).render_as_string(hide_password=False)
    plain = f"sqlite:///{path}"
    if uri == plain or (not query and not re.search(r"[?%]", path)):
        return plain  # Unicode and # need no escape.
    # With a driver in its scheme MLflow does not take the rest of the address for a path, of which it would make the folders.
    return uri.replace("sqlite:", "sqlite+pysqlite:", 1)


def database_of(address: str) -> Path | None:
    """Return the file of an SQLite address, None for any other store."""
    if not address.startswith("sqlite"):
        return None
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(address)
    except ArgumentError:
        return None
    database = url.database or ""
    if database.startswith("file:") and url.query.get("uri"):
        database = unquote(urlsplit(database).path)
    return Path(database) if database not in ("", ":memory:") else None


def _sqlite(chosen: str, home: Path) -> str:
    """Return an SQLite address with its path absolute.

    Raises:
        TrackingError: it names no file, or has options that SQLite does not take.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(chosen)
    except (ArgumentError, ValueError):
        url = None
    path = database_of(chosen)
    if url is None or url.host or path is None:
        rest = re.sub(r"^sqlite(\+\w+)?:/*", "", chosen) or "mlflow.db"
        meant = f"sqlite:///{'mlflow.db' if rest == ':memory:' else rest}"
        why = "a database in memory, which ends with the process" if url is not None and not url.host else "an address without a path"
        raise TrackingError(f"{VARIABLE} is {chosen!r}, {why}: write {meant} (or with four slashes, where the path is absolute)")
    query = {name: value if isinstance(value, str) else value[-1] for name, value in url.query.items()}
    is_file_uri = str(url.database).startswith("file:")
    odd = sorted({*query} - SQLITE_OPTIONS)
    if (odd and not (is_file_uri and query.get("uri"))) or query.get("mode") == "memory":
        names = "mode=memory" if query.get("mode") == "memory" else ", ".join(odd)
        raise TrackingError(f"{VARIABLE} is {chosen!r}, but {names} is nothing that a database file is opened with: leave it out")
    absolute = Path(os.path.normpath(home / path)).as_posix()
    return sqlite_address(f"file:{quote(absolute)}" if is_file_uri else absolute, **query)


def _problem(chosen: str) -> str | None:
    """Return why an address that is not SQLite's can never work, and what was probably meant; None if it can."""
    if "://" not in chosen and _HOST.fullmatch(chosen.rpartition("@")[2]):
        return f"an address without a scheme: write {masked(f'http://{chosen}')}"
    kind = _kind(chosen)
    if kind in ("", "file"):
        return f"a folder of files, which MLflow no longer writes: {EXAMPLES}"
    if kind == "postgres":
        return "which SQLAlchemy knows as postgresql://…: write that"
    if kind in SERVERS:
        return None if _has_host(chosen) else f"an address without a host: write {_mended(chosen) or f'{kind}://host:5000'}"
    if kind in DATABASES:
        return None if _has_database(chosen) else f"an address without a database: write {kind}://user:password@host/database"
    known = {point.name for point in entry_points(group="mlflow.tracking_store")} | {"databricks", "databricks-uc", "uc"}
    return None if kind in known else f"of a kind ({kind}://) that MLflow does not know here: {EXAMPLES}"


def _kind(chosen: str) -> str:
    """Return the scheme of an address without a driver, the empty text if it has none."""
    scheme = re.match(r"([a-z][a-z0-9.-]*)(\+\w+)?:", chosen, re.IGNORECASE)
    return scheme[1].lower() if scheme else ""


def _mended(chosen: str) -> str | None:
    """Return the address with the two slashes that belong behind its scheme, None if there is no host either way."""
    scheme, _, rest = chosen.partition(":")
    mended = f"{scheme}://{rest.lstrip('/')}"
    return masked(mended) if _has_host(mended) else None


def _has_host(chosen: str) -> bool:
    # A password with a slash that is not encoded ends the host too early: what counts is what stands behind the last @.
    scheme, _, rest = chosen.partition("://")
    try:
        parts = urlsplit(f"{scheme}://{rest.rpartition('@')[2]}")
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _has_database(chosen: str) -> bool:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(chosen)
    except (ArgumentError, ValueError):
        return False
    return bool(url.database) or "odbc_connect" in url.query


def _shown(chosen: str) -> str:
    text = masked(chosen) if "://" in chosen else f"{HIDDEN}@{chosen.rpartition('@')[2]}" if "@" in chosen else chosen
    return repr(text)
