"""Finds the MLflow store of a project, and the runs in it."""

import logging
import os
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline import database, project
from pipeline.addresses import VARIABLE, TrackingError, database_of, store_address
from pipeline.masking import masked, secrets_in
from pipeline.metrics.points import TimedPoint
from pipeline.run import ORIGINAL, PARENT, SWEEP_RUN, WATERMARK, Run, git_of, moment, number

if TYPE_CHECKING:  # It costs two seconds, so functions import it when they need it.
    from mlflow import MlflowClient

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # An unreachable server otherwise blocks four minutes a call.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
PAGE = 1000
"""Runs that MLflow is asked for in one call."""
LARGEST_FLOAT = 1.7976931348623157e308
"""What MLflow's database writes for an infinity."""

logger = logging.getLogger(__name__)
_configured: dict[str, str] = {}
_opened: dict[str, tuple[int, int | None]] = {}
"""How often each database was opened anew, and the file that it was then."""


def configure(root: Path) -> str | None:
    """Set MLflow up for the project at `root`, before anything imports it; return the project run that started this process, if any.

    `mlflow run` leaves that run's ID in the environment, where MLflow would log our metrics to it.

    Raises:
        TrackingError: MLFLOW_TRACKING_URI names a store that cannot be used.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    for chatty in ("alembic", "mlflow", "sqlalchemy"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").addFilter(_has_no_traceback)  # 80 lines for each try; who asks gets a sentence.
    _configured["uri"] = tracking_uri(root)
    return os.environ.pop("MLFLOW_RUN_ID", None)


def tracking_uri(root: Path) -> str:
    """Return MLFLOW_TRACKING_URI, else the database that `mlflow ui` without flags shows when started in `root`; always absolute.

    Raises:
        TrackingError: it can never work, or is a folder of files, which keeps doubled points and which MLflow no longer opens.
    """
    return store_address(os.environ.get(VARIABLE), project.home(root.absolute()))


def configured_uri() -> str:
    """Return the store that `configure` chose."""
    assert _configured, "call configure(root) first"
    return _configured["uri"]


def client(uri: str) -> "MlflowClient":
    """Return MLflow's client for a store; a database is made if it is not there yet, and opened anew if it was removed meanwhile.

    Raises:
        TrackingError: the database is half-made.
    """
    opened, inode = _opened.get(uri, (0, None))
    if uri in _opened and inode != _inode(uri):
        opened += 1
    # MLflow keeps connections by the URI, and would go on writing to the removed file: another spelling is another connection.
    address, question, query = uri.partition("?")
    folder, slash, name = address.rpartition("/")
    found = _client(f"{folder}{'/.' * opened}{slash}{name}{question}{query}")
    _opened[uri] = opened, _inode(uri)
    return found


@cache
def _client(uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    path = database_of(uri)
    return database.opened(uri, path) if path else MlflowClient(tracking_uri=uri)


def store_mark(uri: str) -> str:
    """Return what names a store in a work directory; a database that was removed and made again is another one."""
    return f"{shown(uri)} {_inode(uri) or ''}".strip()


def _inode(uri: str) -> int | None:
    path = database_of(uri)
    try:
        return path.stat().st_ino if path else None
    except OSError:
        return None


def shown(uri: str) -> str:
    """Return a URI as it may stand in a message: without user, password or token."""
    return masked(uri)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn whatever goes wrong in MLflow or on the way to it into one sentence.

    Raises:
        TrackingError: something did.
    """
    try:
        yield
    except Exception as error:
        if not is_expected(error) or isinstance(error, TrackingError):
            raise
        raise TrackingError(sentence(uri, error)) from error


def is_expected(error: Exception) -> bool:
    """Tell a store that does not answer or refuses from a mistake in this program."""
    import requests
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    return isinstance(error, (TrackingError, MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError))


def sentence(uri: str, error: Exception) -> str:
    """Say in one sentence what went wrong at a store."""
    if isinstance(error, TrackingError):
        return str(error)
    text = str(error).strip().split("\n")[0]
    if "failed with exception" in text or "Max retries exceeded" in text:
        return _unanswered(uri)
    return f"MLflow at {shown(uri)}: {masked(text, secrets_in(uri))[:300]}"


def ping(uri: str | None = None, seconds: float = 5.0) -> None:
    """Find out quickly whether a server says anything at all: MLflow itself waits for minutes.

    Raises:
        TrackingError: it does not.
    """
    import requests

    uri = uri or configured_uri()
    if urlsplit(uri).scheme not in ("http", "https"):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Who it is does not matter yet.
            requests.get(f"{uri.rstrip('/')}/health", timeout=seconds, verify=False, stream=True).close()
    except requests.RequestException:
        raise TrackingError(_unanswered(uri)) from None


def experiment_id(uri: str, name: str) -> str:
    """Return the experiment's ID; make it if need be, artifacts beside the database where the store is one.

    The location is absolute, so that `mlflow ui` started anywhere finds the files; a server chooses its own.
    """
    from mlflow.exceptions import MlflowException

    found = client(uri).get_experiment_by_name(name)
    if found is None:
        try:
            return client(uri).create_experiment(name, artifact_location=_artifact_location(uri, name))
        except MlflowException:
            found = client(uri).get_experiment_by_name(name)  # Another process made it at the same time.
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"MLflow at {shown(uri)}: experiment {name!r} is deleted: `mlflow experiments restore -x {found.experiment_id}` or rename it"
        )
    return found.experiment_id


def find_by_key(segment: str, key: str, uri: str | None = None, experiment: str | None = None) -> Run | None:
    """Return the newest run that trains this segment with this key, None if there is none.

    One of this experiment comes first.
    """
    found = find_all_by_key(segment, key, uri)
    return next((run for run in found if run.experiment == experiment), found[0] if found else None)


def find_all_by_key(segment: str, key: str, uri: str | None = None) -> list[Run]:
    """Return the runs that train this segment with this key, newest first."""
    return list_runs(f"tags.`matwm.segment` = '{_quoted(segment)}' AND tags.`matwm.key` = '{_quoted(key)}'", uri)


def get_run(run_id: str, uri: str | None = None) -> Run | None:
    """Return a run by its whole ID, None if it is not in the store or deleted."""
    uri = uri or configured_uri()
    with explained(uri):
        found = _get(run_id, uri)
        if found is None or found.info.lifecycle_stage != "active":
            return None
        return _run(found, client(uri).get_experiment(found.info.experiment_id).name)


def is_deleted(run_id: str, uri: str | None = None) -> bool:
    """Return whether somebody has deleted a run: the store still knows it."""
    uri = uri or configured_uri()
    with explained(uri):
        found = _get(run_id, uri)
        return found is not None and found.info.lifecycle_stage != "active"


def id_today(run_id: str, uri: str | None = None) -> str:
    """Return the ID under which a store has a run: its own, or the one that it got when it was imported or created anew."""
    if get_run(run_id, uri):
        return run_id
    found = list_runs(f"tags.`{ORIGINAL}` = '{_quoted(run_id)}'", uri, at_most=1)
    return found[0].id if found else run_id


def lost(run_ids: Iterable[str], uri: str | None = None) -> set[str]:
    """Return those of some runs that the store does not know; one that somebody has deleted is known."""
    uri, asked = uri or configured_uri(), sorted(run_ids)
    if _is_absent(uri) or not asked:
        return set(asked)
    from mlflow.entities import ViewType

    known: set[str] = set()
    with explained(uri):
        experiments = [one.experiment_id for one in _pages(client(uri).search_experiments, view_type=ViewType.ALL)]
        for start in range(0, len(asked) if experiments else 0, 100):
            condition = f"attributes.run_id IN ({', '.join(repr(_quoted(one)) for one in asked[start : start + 100])})"
            options = {"experiment_ids": experiments, "filter_string": condition, "run_view_type": ViewType.ALL}
            known |= {run.info.run_id for run in _pages(client(uri).search_runs, **options)}
    return {*asked} - known


def list_runs(condition: str = "tags.`matwm.segment` LIKE '%'", uri: str | None = None, at_most: int | None = None) -> list[Run]:
    """Return MATWM's runs in all experiments, newest first; an absent database has none and is not made.

    With `at_most` no more than so many are asked for: each costs MLflow milliseconds.

    Raises:
        TrackingError: the store does not answer.
    """
    uri = uri or configured_uri()
    if _is_absent(uri):
        return []
    with explained(uri):
        names = {experiment.experiment_id: experiment.name for experiment in _pages(client(uri).search_experiments)}
        # `start_time` alone leaves the order of runs within one millisecond open.
        options = {
            "experiment_ids": list(names),
            "filter_string": condition,
            "order_by": ["attributes.start_time DESC", "attributes.run_id"],
            "max_results": min(at_most or PAGE, PAGE),
        }
        found = islice(_pages(client(uri).search_runs, **options), at_most)
        return [_run(run, names[run.info.experiment_id]) for run in found] if names else []


def sweep_run(name: str, experiment: str, uri: str) -> str:
    """Return the ID of the run of a sweep, created if need be; of two that were created at the same time, the first is taken by both."""
    condition = f"tags.`{SWEEP_RUN}` = '{_quoted(name)}'"
    options = {"filter_string": condition, "order_by": ["attributes.start_time", "attributes.run_id"]}
    with explained(uri):
        experiments = [experiment_id(uri, experiment)]
        found = list(_pages(client(uri).search_runs, experiment_ids=experiments, **options))
        if not found:
            made = client(uri).create_run(experiments[0], run_name=name, tags={SWEEP_RUN: name}).info.run_id
            client(uri).set_terminated(made)  # It holds runs together, and nobody trains it.
            found = list(_pages(client(uri).search_runs, experiment_ids=experiments, **options))
            if found[0].info.run_id != made:
                client(uri).delete_run(made)
        return found[0].info.run_id


def artifact_locations(uri: str | None = None) -> set[str]:
    """Return where MATWM's runs keep their artifacts, and where those of new runs would go.

    MLflow's own experiment Default lies where somebody once happened to start MLflow: it matters only if a run of ours is in it.

    Raises:
        TrackingError: the store does not answer.
    """
    uri = uri or configured_uri()
    found = {str(run.artifact_uri) for run in list_runs(uri=uri)}
    with explained(uri):
        experiments = [] if _is_absent(uri) else [*_pages(client(uri).search_experiments)]
    return found | {experiment.artifact_location for experiment in experiments if experiment.experiment_id != "0"}


def metric_history(run_id: str, uri: str | None = None, keys: Iterable[str] | None = None) -> list[TimedPoint]:
    """Return every metric point of a run with its time (only of these keys, if given)."""
    uri = uri or configured_uri()
    with explained(uri):
        return [
            TimedPoint(metric.key, metric.step, _original(metric.value), metric.timestamp)
            for key in sorted(client(uri).get_run(run_id).data.metrics if keys is None else keys)
            for metric in client(uri).get_metric_history(run_id, key)
        ]


def log_once(run_id: str, step: int, values: Mapping[str, float], uri: str | None = None) -> list[str]:
    """Log metrics of a step; those that the run has at this step stay as they are. Return the names of the new ones.

    Raises:
        TrackingError: the store does not answer, or refuses.
    """
    from mlflow.entities import Metric

    uri = uri or configured_uri()
    with explained(uri):
        there = client(uri).get_run(run_id).data.metrics
        known = {key for key in values if key in there and any(one.step == step for one in client(uri).get_metric_history(run_id, key))}
        now = time.time_ns() // 1_000_000
        new = [Metric(key, value, now, step) for key, value in values.items() if key not in known]
        if new:
            client(uri).log_batch(run_id, metrics=new, synchronous=True)
        return [metric.key for metric in new]


def close_run(run: Run, uri: str | None = None) -> None:
    """Mark a run that nobody trains any more as KILLED at its last sign of life.

    Raises:
        TrackingError: the store does not answer.
    """
    uri = uri or configured_uri()
    with explained(uri):
        client(uri).set_terminated(run.id, "KILLED", end_time=run.last_sign_ms)


def _get(run_id: str, uri: str) -> Any:
    from mlflow.exceptions import MlflowException

    if _is_absent(uri):
        return None
    try:
        return client(uri).get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _has_no_traceback(record: logging.LogRecord) -> bool:
    return record.exc_info is None


def _unanswered(uri: str) -> str:
    return f"MLflow at {shown(uri)} does not answer: start that server, or unset MLFLOW_TRACKING_URI to use this folder's own store"


def _original(value: float) -> float:
    """Undo what the database does to infinities."""
    return float("inf") * (1 if value > 0 else -1) if abs(value) >= LARGEST_FLOAT else value


def _artifact_location(uri: str, name: str) -> str | None:
    path = database_of(uri)
    if path is None:
        return None
    folder = path.parent / "mlruns" / re.sub(r"[^\w.-]", "_", name)
    return folder.as_uri() if re.search(r"[?#%]", str(folder)) else str(folder)  # MLflow takes a path apart like a URI.


def _is_absent(uri: str) -> bool:
    path = database_of(uri)
    return path is not None and not path.exists()


def _pages(search: Any, **options: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(**options, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _run(found: Any, experiment: str) -> Run:
    tags = dict(found.data.tags)
    machine = {"device": tags["matwm.device"]} if "matwm.device" in tags else {}
    machine |= {"libraries": {"torch": tags["matwm.torch"]}} if "matwm.torch" in tags else {}
    ended_ms = found.info.end_time if found.info.status != "RUNNING" else None
    run = Run(
        run_id=found.info.run_id,
        segment=tags.get("matwm.segment"),
        key=tags.get("matwm.key"),
        experiment=experiment,
        status=found.info.status,
        step=number(tags.get(WATERMARK)) or 0,
        until=number(tags.get("matwm.until")),
        parent_run_id=tags.get(PARENT),
        parent_step=number(tags.get("matwm.parent_step")),
        parent_digest=tags.get("matwm.parent_digest"),
        artifact_uri=found.info.artifact_uri,
        tags=tags,
        metrics=frozenset(found.data.metrics),
        started_ms=found.info.start_time,
        ended_ms=ended_ms,
        last_sign_ms=found.info.start_time,
        started=moment(found.info.start_time),
        finished=moment(ended_ms),
        git=git_of(tags),
        numerics=number(tags.get("matwm.numerics")),
        machine=machine,
        former_id=tags.get(ORIGINAL),
    )
    if run.heartbeat is not None:
        run.last_sign_ms = max(run.last_sign_ms, run.heartbeat.time_ms)
    return run


def _quoted(text: str) -> str:
    return text.replace("'", "")
