"""Whether a file can be had, asked without taking it: what the cache holds, what a server says.

Requests are HEAD, or one byte where a server refuses HEAD; each has a few seconds. Nothing is
written, and nothing in the cache is removed or hashed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import threading
import urllib.parse
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from cxr_foundation.catalog import Source
from cxr_foundation.errors import SourceUnavailable
from cxr_foundation.hub import repository, web
from cxr_foundation.hub.repository import check_token
from cxr_foundation.hub.sources import WEIGHTS, place

__all__ = [
    "Answer",
    "ask",
    "ask_hub",
    "check_token",
    "endpoint",
    "held",
    "hub_cache",
    "implicit_token",
    "started",
]

_SECONDS = 3.0
_HEAD_REFUSED = {403, 405, 501}
_SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server says of a file.

    Attributes:
        size: Bytes; None if it does not say.
        sha256: Only the Hub gives it, and only of large files.
    """

    size: int | None
    sha256: str | None


def started(function: Callable[[], T]) -> Future[T]:
    """Run a request in a thread that nobody waits for: a name server's silence has no timeout."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def endpoint() -> str:
    """HF_ENDPOINT as huggingface_hub reads it, without a user's name and password."""
    parts = urllib.parse.urlsplit(constants.ENDPOINT)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def implicit_token() -> str | None:
    """The token that huggingface_hub sends by itself: HF_TOKEN's, or that of a login."""
    return None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else huggingface_hub.get_token()


def hub_cache(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Folder that files of the Hub are downloaded to."""
    return Path(cache_dir or constants.HF_HUB_CACHE).expanduser()


def held(
    source: Source,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Path | None:
    """The authors' file as it lies in the cache; None if it is not there, or has another size."""
    path = _path(source, revision, cache_dir)
    if path is None or not path.is_file():
        return None
    return path if source.size_bytes in (None, path.stat().st_size) else None


def _path(
    source: Source, revision: str | None, cache_dir: str | os.PathLike[str] | None
) -> Path | None:
    if source.kind == "hub" and source.repo is not None:
        found = huggingface_hub.try_to_load_from_cache(
            source.repo,
            source.filename or WEIGHTS,
            None if cache_dir is None else os.fspath(cache_dir),
            revision=revision or source.revision,
        )
        return Path(found) if isinstance(found, str) else None
    if source.kind == "url" and source.url is not None:
        name = source.filename or urllib.parse.urlsplit(source.url).path.rpartition("/")[2]
        return place(source.url, name, cache_dir)
    if source.kind == "google_drive" and source.file_id is not None:
        address = f"google_drive:{source.file_id}"
        return place(address, source.filename or source.file_id, cache_dir)
    return None


def ask(
    source: Source, *, name: str, revision: str | None = None, token: str | None = None
) -> Answer:
    """Ask the server of a "hub" or "url" source for its file, without the file.

    Raises:
        GatedSource: The owner grants access first.
        SourceUnavailable: The server has it not, refuses, sends a web page, or is not reached.
    """
    if source.kind == "hub" and source.repo is not None:
        return _ask_repository(source, name, revision or source.revision, token)
    if source.kind == "url" and source.url is not None:
        return _ask_server(source.url, name)
    raise SourceUnavailable(name, f"a source of kind '{source.kind}' cannot be asked")


def _ask_repository(source: Source, name: str, pinned: str | None, token: str | None) -> Answer:
    check_token(name, token or implicit_token())
    repo, filename = source.repo or "", source.filename or WEIGHTS
    with repository.translated(name, repo=repo, revision=pinned, filename=filename):
        found = huggingface_hub.get_hf_file_metadata(
            huggingface_hub.hf_hub_url(repo, filename, revision=pinned),
            token=token,
            timeout=_SECONDS,
        )
    digest = found.etag if found.etag and _SHA256.fullmatch(found.etag) else None
    return Answer(size=found.size, sha256=digest)


def _ask_server(url: str, name: str) -> Answer:
    host = urllib.parse.urlsplit(url).hostname or "the server"
    remedy = "The file may have moved; look at its page, then `cxr convert FILE OUT_DIR`."
    try:
        response = _head(url, name)
        size = response.headers.get("Content-Length")
        if response.status_code in _HEAD_REFUSED:
            with contextlib.ExitStack() as stack:
                one_byte = {"Accept-Encoding": "identity", "Range": "bytes=0-0"}
                response = web.opened(stack, url, one_byte, name)
                whole = response.headers.get("Content-Range", "").rpartition("/")[2]
                size = whole or response.headers.get("Content-Length")
    except errors.HTTPError as error:  # type: ignore[attr-defined]
        reason = f"{host}: the connection failed ({type(error).__name__})"
        raise SourceUnavailable(name, reason, "Check network and proxy.") from error
    if response.status_code not in (200, 206):
        raise SourceUnavailable(name, f"{host} answered {response.status_code}", remedy)
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise SourceUnavailable(name, f"{host} sends a web page in place of the file", remedy)
    return Answer(size=int(size) if size and size.isdigit() else None, sha256=None)


def _head(url: str, name: str) -> Any:
    """The first answer to HEAD that is no redirect; they are followed where a download would."""
    session = huggingface_hub.get_session()
    options: dict[str, Any] = {"follow_redirects": False, "timeout": _SECONDS}
    options["headers"] = {"Accept-Encoding": "identity"}
    return web.followed(url, name, lambda at: session.request("HEAD", at, **options))


def ask_hub(token: str | None = None) -> int:
    """HTTP status of the Hub's answer: with a token to "who am I", else to its first page.

    Raises:
        SourceUnavailable: It is not reached.
    """
    address, known = endpoint(), token or implicit_token()
    check_token(address, known)
    method, path = ("GET", "/api/whoami-v2") if known else ("HEAD", "")
    with repository.translated(address, repo=address, revision=None):
        response = huggingface_hub.get_session().request(
            method,
            constants.ENDPOINT + path,
            headers=build_hf_headers(token=known or False),
            timeout=_SECONDS,
        )
    return int(response.status_code)
