"""One file over plain https: resumed where it broke, bounded in time, never downgraded."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Never

import huggingface_hub
from huggingface_hub import errors
from tqdm import tqdm

from cxr_foundation.errors import SourceUnavailable

__all__ = ["followed", "opened", "save"]

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_HOPS = 10
_TRIES = 5
_PATIENCE_S = 60.0  # for waits that the server asks for
_SILENCE_S = 20.0  # without one byte
_STALL_S = 30.0  # over which the rate is measured
_STALL_RATE = 1024.0  # bytes per second
_PASSING = {408, 429, 500, 502, 503, 504}


class _Passing(Exception):
    """A failure after which another try may succeed, `wait` seconds later."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def save(url: str, target: Path, *, subject: str) -> None:
    """Write the bytes at `url` to `target`; a connection that is cut is continued where it broke.

    Only https; plain http is taken from the loopback alone. No credentials are sent. Waits that
    a server asks for (Retry-After) are kept, up to a minute together.

    Raises:
        SourceUnavailable: The server refuses, stalls, or redirects to a place without https.
    """
    host = urllib.parse.urlsplit(url).hostname or "the server"
    failures, patience, reason = 0, _PATIENCE_S, ""
    with open(target, "wb") as file, _bar(target) as bar:
        while failures < _TRIES:
            before = file.tell()
            try:
                _attempt(url, file, bar, subject)
                return
            except _Passing as error:
                reason, wait = str(error), error.wait
            except errors.HTTPError as error:  # type: ignore[attr-defined]
                reason, wait = f"the connection failed ({type(error).__name__})", None
            failures = 1 if file.tell() > before else failures + 1
            pause = min(2.0 ** (failures - 2), 8.0) if wait is None else wait
            patience -= pause
            if patience < 0:
                reason += f", and asks to wait {pause:.0f} s more"
                break
            time.sleep(pause)
    raise SourceUnavailable(
        subject,
        f"{host}: {reason}",
        "Run it again later, or fetch the file by hand and use `cxr convert FILE OUT_DIR`.",
    )


def _attempt(url: str, file: BinaryIO, bar: Any, subject: str) -> None:
    offset = file.tell()
    # Compressed on the way, the bytes of a Range would not be the file's.
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with contextlib.ExitStack() as stack:
        response = opened(stack, url, headers, subject)
        status = response.status_code
        if status in _PASSING:
            wait = _retry_after(response.headers.get("Retry-After"))
            raise _Passing(f"the server answered {status}", wait)
        resumed = status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {offset}-"
        )
        if not resumed:
            file.seek(0)
            file.truncate()
            bar.reset()
        if status == 416 or (status == 206 and not resumed):
            raise _Passing("the server sent another part than the one asked for")
        if status not in (200, 206):
            raise SourceUnavailable(
                subject,
                f"{urllib.parse.urlsplit(url).hostname} answered {status}",
                "The file may have moved; look at its page, then `cxr convert FILE OUT_DIR`.",
            )
        _copy(response, file, bar)


def _copy(response: Any, file: BinaryIO, bar: Any) -> None:
    bar.total = file.tell() + int(response.headers.get("Content-Length") or 0) or None
    since, mark = time.monotonic(), file.tell()
    for piece in response.iter_bytes():
        file.write(piece)
        bar.update(len(piece))
        if time.monotonic() - since > _STALL_S:
            if file.tell() - mark < _STALL_S * _STALL_RATE:
                raise _Passing("the server sends next to nothing", wait=_PATIENCE_S + 1)
            since, mark = time.monotonic(), file.tell()


def opened(stack: contextlib.ExitStack, url: str, headers: dict[str, str], subject: str) -> Any:
    """The first answer to GET that is no redirect; its body is read by the caller."""
    session = huggingface_hub.get_session()
    options: dict[str, Any] = {"headers": headers, "follow_redirects": False, "timeout": _SILENCE_S}
    return followed(
        url, subject, lambda at: stack.enter_context(session.stream("GET", at, **options))
    )


def followed(url: str, subject: str, ask: Callable[[str], Any]) -> Any:
    """The first answer that is no redirect, asked for at one address after the other.

    Raises:
        SourceUnavailable: One of them is neither https nor, from there on, this machine; or there
            is no end of them.
    """
    local = is_loopback(url)
    for _ in range(_HOPS):
        if not (url.startswith("https://") or (local and is_loopback(url))):
            reason = f"{urllib.parse.urlsplit(url).scheme or 'a path'} is not https"
            raise SourceUnavailable(subject, reason, "Only https addresses are fetched.")
        response = ask(url)
        if not response.is_redirect:
            return response
        url = urllib.parse.urljoin(url, response.headers["Location"])
    host = urllib.parse.urlsplit(url).hostname
    raise SourceUnavailable(subject, f"{host} redirects in a circle", "Tell the file's owner.")


def is_loopback(url: str) -> bool:
    """Whether an address is plain http to this machine."""
    address = urllib.parse.urlsplit(url)
    return address.scheme == "http" and address.hostname in _LOOPBACK


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header (seconds or a date) asks for; None without one."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())


def _bar(target: Path) -> tqdm[Never]:
    return tqdm(desc=target.name, unit="B", unit_scale=True, disable=None)
