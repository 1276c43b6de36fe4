"""The authors' own file, from wherever a card says that it is."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import re
import shutil
import sys
import tempfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from cxr_foundation.catalog import Source
from cxr_foundation.errors import (
    AskTheAuthors,
    HashMismatch,
    OutputFailed,
    SourceUnavailable,
)
from cxr_foundation.files import atomic_write
from cxr_foundation.hub import repository, web
from cxr_foundation.hub.cache import (
    cache_root,
    difference,
    is_offline,
    output_failed,
    verified,
)

__all__ = ["fetch", "place"]

WEIGHTS = "model.safetensors"
_BY_HAND = "Download it in a browser, then `cxr convert FILE OUT_DIR`."


def fetch(
    source: Source,
    *,
    name: str,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """The authors' file of a card, checked; from the cache where it is there already.

    Args:
        source: Where the file is.
        name: The checkpoint's name, for messages.
        revision: Of a Hub repository, instead of the card's; the card's sha256 holds all the
            same. Where neither is given, the main branch is taken, and the returned file's folder
            is named by the commit that it stood at.
        token: As in huggingface_hub; sent to the Hub alone.
        cache_dir: As in huggingface_hub.
        local_files_only: Open no socket.

    Returns:
        A file with the card's size and sha256, as far as the card knows them; of a published
        folder its `model.safetensors`.

    Raises:
        AskTheAuthors: The file is only had by asking.
        GatedSource: The owner grants access first.
        HashMismatch: Other bytes than the card promises, twice; the file was removed.
        OutputFailed: The cache is full or cannot be written.
        SourceUnavailable: The server has it not or refuses; no network and no cached copy.
    """
    if source.kind == "ask":
        how = f"{source.how} " if source.how else ""
        reason = "its authors give the file to those who ask"
        raise AskTheAuthors(name, reason, f"{how}Then `cxr convert FILE OUT_DIR --name {name}`.")
    if source.kind == "bundled":
        return _bundled(source, name)
    offline = is_offline(local_files_only)
    if source.kind == "hub":
        return _from_hub(source, name, revision, token, cache_dir, local_files_only)
    if source.kind == "url":
        url = _known(source.url, name, "url")
        filename = source.filename or urllib.parse.urlsplit(url).path.rpartition("/")[2]

        def write(path: Path) -> None:
            web.save(url, path, subject=name)

        target = place(url, filename, cache_dir)
    else:
        file_id = _known(source.file_id, name, "file_id")

        def write(path: Path) -> None:
            _save_from_drive(file_id, path, name)

        target = place(f"google_drive:{file_id}", source.filename or file_id, cache_dir)
    return _cached(source, target, write, name=name, offline=offline)


def _known(value: str | None, name: str, key: str) -> str:
    if value is None:
        raise SourceUnavailable(name, f"its card names no {key}", "See `cxr show NAME`.")
    return value


def _bundled(source: Source, name: str) -> Path:
    weights = Path(str(importlib.resources.files("cxr_foundation"))) / "weights"
    path = weights / _known(source.path, name, "path") / (source.filename or WEIGHTS)
    again = "Install cxr-foundation-hub again."
    if weights.resolve() not in path.resolve().parents or not path.is_file():
        raise SourceUnavailable(name, "its weights are not in the installed package", again)
    # Part of the installation: never removed, and hashed without leaving a stamp in it.
    wrong = difference(path, sha256=source.sha256, size=source.size_bytes, stamped=False)
    if wrong is not None:
        raise HashMismatch(name, wrong, again)
    return path


def _from_hub(
    source: Source,
    name: str,
    revision: str | None,
    token: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
) -> Path:
    repository.check_token(name, token)
    repo = _known(source.repo, name, "repo")
    filename = source.filename or WEIGHTS
    pinned = revision or source.revision

    def get() -> Path:
        return repository.download(
            repo,
            filename,
            revision=pinned,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )

    with repository.translated(name, repo=repo, revision=pinned, filename=filename):
        return verified(
            name,
            get,
            sha256=source.sha256,
            size=source.size_bytes,
            offline=is_offline(local_files_only),
        )


def place(address: str, filename: str, cache_dir: str | os.PathLike[str] | None) -> Path:
    """Where the file of an address is cached; the name is one path part, whatever a card says."""
    key = hashlib.sha256(address.encode()).hexdigest()[:16]
    plain = re.sub(r"[^\w.-]", "_", filename).lstrip(".") or "file"
    return cache_root(cache_dir) / "sources" / key / plain


def _cached(
    source: Source, target: Path, write: Callable[[Path], None], *, name: str, offline: bool
) -> Path:
    """The cached file if it is right, else a new one; one process writes, the others wait."""

    def get() -> Path:
        if not target.is_file():
            with atomic_write(target) as temporary:
                write(temporary)
                _refuse_page(temporary, name)
        return target

    sha256, size = source.sha256, source.size_bytes
    # A right copy needs no lock: it is also had from a cache that cannot be written.
    if target.is_file() and (offline or difference(target, sha256=sha256, size=size) is None):
        return verified(name, get, sha256=sha256, size=size, offline=offline)
    if offline:
        reason = "its file is not in the cache, and the network is off"
        raise SourceUnavailable(name, reason, f"Fetch it once with the network on. {_BY_HAND}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise output_failed(target, error) from error
    try:
        _check_space(target, size)
        return verified(name, get, sha256=sha256, size=size, offline=offline)
    finally:
        lock.release()


def _check_space(target: Path, size: int | None) -> None:
    free = shutil.disk_usage(target.parent).free
    if size is not None and size > free and not target.exists():
        raise OutputFailed(target, f"the file has {size:,} bytes, {free:,} are free")


def _refuse_page(path: Path, name: str) -> None:
    with open(path, "rb") as file:
        start = file.read(64).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        reason = "the server sent a web page in place of the file"
        raise SourceUnavailable(name, reason, _BY_HAND)


def _save_from_drive(file_id: str, target: Path, name: str) -> None:
    import gdown  # here, because it brings an HTML parser along

    failures = tuple(
        error
        for error in vars(gdown.exceptions).values()
        if isinstance(error, type) and issubclass(error, Exception)
    )
    page = f"https://drive.google.com/file/d/{file_id}/view"
    remedy = (
        f"Download it by hand from {page}, then `cxr convert FILE OUT_DIR`. An id of a folder is"
        " not the id of a file."
    )
    # gdown leaves its partial files beside its output: here they go with the folder.
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        part = Path(scratch) / "file"
        try:
            gdown.download(
                id=file_id, output=str(part), quiet=not sys.stderr.isatty(), use_cookies=False
            )
        except failures as error:
            reason = f"Google Drive does not give out file {file_id}"
            raise SourceUnavailable(name, reason, remedy) from error
        except OSError as error:
            if error.errno is not None:
                raise
            reason = f"Google Drive could not be reached ({type(error).__name__})"
            raise SourceUnavailable(name, reason, remedy) from error
        if not part.is_file():
            reason = f"Google Drive gave nothing for file {file_id}"
            raise SourceUnavailable(name, reason, remedy)
        part.replace(target)
