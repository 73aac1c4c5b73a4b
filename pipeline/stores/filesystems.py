"""Opens what a DVC remote lies on through fsspec: a folder, SSH or S3, by the options that DVC documents for them."""

import base64
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.dvc_config import is_on
from pipeline.project import ProjectError

S3_CREDENTIALS = {"access_key_id": "key", "secret_access_key": "secret", "session_token": "token", "profile": "profile"}
S3_ENCRYPTION = {
    "sse": "ServerSideEncryption",
    "sse_kms_key_id": "SSEKMSKeyId",
    "sse_customer_algorithm": "SSECustomerAlgorithm",
    "acl": "ACL",
    "grant_full_control": "GrantFullControl",
    "grant_read": "GrantRead",
    "grant_read_acp": "GrantReadACP",
    "grant_write_acp": "GrantWriteACP",
}
SSH_CIPHERS = ["aes128-gcm@openssh.com", "aes256-ctr", "aes192-ctr", "aes128-ctr"]
"""Quick ones; compression is off for the same reason: both are DVC's choice, too."""
CONNECT_SECONDS = 60


class OptionError(ProjectError):
    """The options of a remote do not say how to open it; the message says what is wrong, without the remote's name."""


def options_of(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a remote's options; those of `remote://OTHER/path` are the other's, as far as it does not have its own.

    Raises:
        OptionError: it has no URL, or refers to a remote that is not there.
    """
    own, seen = dict(settings["remote"][name]), {name}
    while (parts := urlsplit(_url(own))).scheme == "remote":
        other = parts.netloc.lower()
        if other in seen or other not in settings["remote"]:
            raise OptionError(f"its url refers to a remote {other}, which is not there or refers back to it")
        seen.add(other)
        base = settings["remote"][other]
        own = {**base, **own, "url": f"{_url(base).rstrip('/')}{parts.path}"}
    return own


def scheme_of(options: Mapping[str, Any]) -> str:
    """Return the kind of a remote: the scheme of its URL, `file` for a path."""
    url = _url(options)
    return urlsplit(url).scheme if "://" in url else "file"


def opened(options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the fsspec file system of a remote and the path in it; nothing is asked of S3 yet, an SSH server is logged in to.

    Raises:
        OptionError: an option cannot be right.
    """
    return KINDS[scheme_of(options)](options)


def _file(options: Mapping[str, Any]) -> tuple[Any, str]:
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem(auto_mkdir=True, skip_instance_cache=True), _parts(options)["path"]


def _ssh(options: Mapping[str, Any]) -> tuple[Any, str]:
    from sshfs import SSHFileSystem

    parts = _parts(options)
    return SSHFileSystem(parts["host"], skip_instance_cache=True, **ssh_login(options)), parts["path"] or "."


def ssh_login(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return how to log in to an SSH server; what is not set here, ~/.ssh/config may say.

    Raises:
        OptionError: an option cannot be right.
    """
    parts = _parts(options)
    login: dict[str, Any] = {
        "username": options.get("user") or parts.get("username"),
        "port": _number(options, "port") or parts.get("port"),
        "password": options.get("password") or parts.get("password"),
        "passphrase": options.get("passphrase"),
        "max_sessions": _number(options, "max_sessions"),
    }
    for secret in ("password", "passphrase"):
        if is_on(options.get(f"ask_{secret}")) and login[secret] is None:
            raise OptionError(f"ask_{secret} is on, but nobody answers in the midst of training: store it (--local) or use a key")
    login = _given(login)
    if keyfile := options.get("keyfile"):
        login["client_keys"] = [str(Path(keyfile).expanduser())]
    if options.get("allow_agent") is not None and not is_on(options["allow_agent"]):
        login["agent_path"] = None
    # Without these, asyncssh would also ask for the passphrases of keys that are not meant.
    methods = ["publickey"] if keyfile or "passphrase" in login else []
    methods += ["keyboard-interactive", "password"] if "password" in login else []
    login |= {"preferred_auth": methods} if methods else {}
    login |= {"timeout": _number(options, "timeout") or CONNECT_SECONDS, "gss_auth": is_on(options.get("gss_auth"))}
    return {**login, "encryption_algs": SSH_CIPHERS, "compression_algs": None}


def _s3(options: Mapping[str, Any]) -> tuple[Any, str]:
    from s3fs import S3FileSystem

    verify = options.get("ssl_verify")
    client = {
        "region_name": options.get("region"),
        "endpoint_url": options.get("endpointurl"),
        "verify": is_on(verify) if str(verify).lower() in ("true", "false") else verify,
    }
    times = {name: _number(options, name) for name in ("read_timeout", "connect_timeout")}
    arguments = {argument: options.get(name) for name, argument in S3_CREDENTIALS.items()}
    # As DVC does; botocore takes these two files from nowhere else.
    for option, variable in (("credentialpath", "AWS_SHARED_CREDENTIALS_FILE"), ("configpath", "AWS_CONFIG_FILE")):
        if options.get(option):
            os.environ.setdefault(variable, options[option])
    return S3FileSystem(
        anon=is_on(options.get("allow_anonymous_login")),
        use_ssl=is_on(options.get("use_ssl", True)),
        client_kwargs=_given(client),
        config_kwargs=_given(times),
        s3_additional_kwargs=_s3_encryption(options),
        cache_regions=not options.get("region") and "AWS_REGION" not in os.environ,
        use_listings_cache=False,
        skip_instance_cache=True,
        **_given(arguments),
    ), _parts(options)["path"]


def _s3_encryption(options: Mapping[str, Any]) -> dict[str, Any]:
    found = _given({argument: options.get(name) for name, argument in S3_ENCRYPTION.items()})
    if key := options.get("sse_customer_key"):
        if "SSEKMSKeyId" in found:
            raise OptionError("sse_kms_key_id and sse_customer_key exclude each other")
        try:
            found["SSECustomerKey"] = base64.b64decode(key, validate=True)
        except ValueError:
            raise OptionError("sse_customer_key is not base64") from None
        found.setdefault("SSECustomerAlgorithm", "AES256")
    if "ACL" in found and any(name.startswith("Grant") for name in found):
        raise OptionError("acl and grant_… exclude each other")
    return found


def _url(options: Mapping[str, Any]) -> str:
    url = options.get("url")
    if not isinstance(url, str) or not url:
        raise OptionError("it has no url")
    return url


def _parts(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a URL's path, host, port, username and password, as far as it has them, by the rules that DVC goes by, too."""
    from fsspec.utils import infer_storage_options

    try:
        return infer_storage_options(_url(options))
    except ValueError as error:
        raise OptionError(f"its url is none: {error}") from None


def _number(options: Mapping[str, Any], name: str) -> int | None:
    value = options.get(name)
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError):
        raise OptionError(f"{name} is {value!r}, not a number") from None


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


KINDS: Mapping[str, Callable[[Mapping[str, Any]], tuple[Any, str]]] = {"file": _file, "ssh": _ssh, "s3": _s3}
"""Scheme of a remote's URL: what opens it."""
RENAMED = ("file", "ssh")
"""Kinds on which a killed upload leaves half a file, and which can rename one at once; an object of S3 is whole or absent."""
