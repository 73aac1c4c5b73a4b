"""What DVC's options for remotes become: held against DVC's own reading where it is to be had, and against the packages' arguments."""

import base64
from pathlib import Path

import pytest

from pipeline import dvc_config, dvc_files
from pipeline.stores import filesystems
from tests.pipeline.projects import Project

SECRET = 'p/w,1 % "x" #y'
STORE = "['remote \"Store\"']\nurl = 'ssh://me@host:2222/some where/#1'\nport = 22\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "project")
    (project.path / ".dvc").mkdir(parents=True)
    return project


def configure(project: Project, text: str, name: str = "config") -> None:
    (project.path / ".dvc" / name).write_text(text, encoding="utf-8")


def test_settings_are_those_that_dvc_lists(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    levels = {"DVC_SYSTEM_CONFIG_DIR": tmp_path / "system", "DVC_GLOBAL_CONFIG_DIR": tmp_path / "user"}
    for variable, folder in levels.items():
        folder.mkdir()
        monkeypatch.setenv(variable, str(folder))
    (tmp_path / "system/config").write_text("[cache]\n    shared = group\n", encoding="utf-8")
    (tmp_path / "user/config").write_text("[core]\nautostage = true\nremote = other\n", encoding="utf-8")
    configure(project, "[core]\nremote = Store\n[cache]\ntype = 'hardlink,copy'\n" + STORE + "verify = true\n")
    project.git("init", "-q")
    project.dvc("remote", "modify", "--local", "store", "password", SECRET)
    environment = {variable: str(folder) for variable, folder in levels.items()}
    listed = dict(line.split("=", 1) for line in project.dvc("config", "--list", **environment).splitlines())
    found = dvc_config.settings(project.path)
    flat = {f"{section}.{name}": value for section in ("core", "cache") for name, value in found[section].items()}
    flat |= {f"remote.store.{name}": value for name, value in found["remote"]["store"].items()}
    assert {*listed} == {*flat}
    assert listed == flat | {"core.remote": "Store"} or listed == flat
    assert (flat["core.remote"], flat["remote.store.password"], flat["core.autostage"]) == ("store", SECRET, "true")


def test_paths_are_relative_to_the_file_that_names_them(project: Project, tmp_path: Path) -> None:
    configure(project, "[cache]\ndir = ../../cache\n['remote \"store\"']\nurl = ../../shared\n")
    configure(project, "['remote \"store\"']\nkeyfile = ~/key\n", "config.local")
    found = dvc_config.settings(project.path)
    assert found["remote"]["store"] == {"url": str(tmp_path / "shared"), "keyfile": str(Path("~/key").expanduser())}
    assert dvc_files.cache_folder(project.path) == tmp_path / "cache"


@pytest.mark.parametrize("text", ["[core\n", "\xff", "[core]\nremote\n"])
def test_settings_that_cannot_be_read_are_none(project: Project, text: str) -> None:
    (project.path / ".dvc/config").write_bytes(text.encode("latin-1"))
    assert dvc_config.settings(project.path) == {}


def test_changed_settings_are_read_again(project: Project) -> None:
    before = dvc_config.settings(project.path)
    assert dvc_config.settings(project.path) is before
    configure(project, "['remote \"store\"']\nurl = /there\n", "config.local")
    assert dvc_config.settings(project.path)["remote"] == {"store": {"url": "/there"}}


def test_a_remote_that_refers_to_another_takes_its_options() -> None:
    settings = {
        "remote": {
            "server": {"url": "ssh://host/data", "user": "root", "port": "22"},
            "images": {"url": "remote://Server/images", "user": "alice"},
        }
    }
    assert filesystems.options_of(settings, "images") == {"url": "ssh://host/data/images", "user": "alice", "port": "22"}


def test_ssh_options() -> None:
    login = filesystems.ssh_login({"url": "ssh://me:p%2Fw@Host:2222/some/#where"})
    assert login.items() >= {"username": "me", "port": 2222, "password": "p%2Fw"}.items()
    assert login["preferred_auth"] == ["keyboard-interactive", "password"]
    options = {
        "user": "you",
        "port": "22",
        "keyfile": "/key",
        "allow_agent": "false",
        "gss_auth": "true",
        "timeout": "5",
        "max_sessions": "4",
    }
    login = filesystems.ssh_login({"url": "ssh://me@host:2222/", **options})
    wanted = {"username": "you", "port": 22, "client_keys": ["/key"], "agent_path": None, "gss_auth": True, "timeout": 5, "max_sessions": 4}
    assert login.items() >= wanted.items()
    assert login["preferred_auth"] == ["publickey"]
    plain = filesystems.ssh_login({"url": "ssh://host/path"})
    assert not {"username", "port", "password", "preferred_auth", "agent_path"} & {*plain}, "~/.ssh/config has a say"


def test_s3_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/kept")
    monkeypatch.delenv("AWS_SHARED_CREDENTIALS_FILE", raising=False)
    options = {
        "access_key_id": "a",
        "secret_access_key": "b",
        "session_token": "c",
        "profile": "d",
        "region": "e",
        "endpointurl": "http://f",
    }
    options |= {"use_ssl": "false", "ssl_verify": "/ca.pem", "connect_timeout": "3", "acl": "private", "configpath": "/c"}
    opened, path = filesystems.opened({"url": "s3://bucket/some/#where", **options})
    made = opened.storage_options
    assert path == "bucket/some/#where"
    assert {name: made[name] for name in ("key", "secret", "token", "profile")} == {"key": "a", "secret": "b", "token": "c", "profile": "d"}
    assert made["client_kwargs"] == {"region_name": "e", "endpoint_url": "http://f", "verify": "/ca.pem"}
    assert (made["use_ssl"], made["config_kwargs"], made["s3_additional_kwargs"]) == (False, {"connect_timeout": 3}, {"ACL": "private"})
    key = base64.b64encode(b"k" * 32).decode()
    options = {"sse_customer_key": key, "ssl_verify": "false", "allow_anonymous_login": "true"}
    made = filesystems.opened({"url": "s3://bucket", **options})[0].storage_options
    assert made["s3_additional_kwargs"] == {"SSECustomerKey": b"k" * 32, "SSECustomerAlgorithm": "AES256"}
    assert (made["client_kwargs"], made["anon"], made["use_ssl"]) == ({"verify": False}, True, True)
