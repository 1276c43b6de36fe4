"""Files of Hugging Face repositories, and huggingface_hub's errors in the package's words."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

from cxr_foundation.errors import CxrError, GatedSource, SourceUnavailable
from cxr_foundation.hub.cache import cache_root, is_offline, output_failed, verified

__all__ = ["check_token", "download", "download_folder", "translated"]

REQUIRED = ("config.json", "model.safetensors")
OPTIONAL = ("README.md", "preprocessor_config.json")

# huggingface_hub retries a HEAD that meets a server error, but not the GET after it.
_PASSING = (500, 502, 503, 504)
_PAUSES = (1.0, 2.0, 4.0)

_STATUS = {
    401: ("the Hub does not accept the token", "Log in again with `hf auth login`."),
    403: ("the token does not allow this", "Use a token with the right for this repository."),
    409: ("somebody else was writing", "Run it again."),
    412: ("somebody else committed meanwhile", "Look at their commit, then run it again."),
    413: ("the Hub takes no file of this size", "Ask the Hub's administrator for its limit."),
    429: ("the Hub asks for fewer requests", "Wait some minutes, then run it again."),
}


def check_token(subject: str, token: str | None) -> None:
    """Refuse a token that cannot be sent; sent all the same, an error would print it.

    Raises:
        SourceUnavailable: It has spaces, line ends or letters outside ASCII.
    """
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):
        reason = "the token has characters that no token has"
        raise SourceUnavailable(subject, reason, "Copy it again, without spaces and line ends.")


@contextlib.contextmanager
def translated(
    subject: str, *, repo: str, revision: str | None, filename: str | None = None
) -> Iterator[None]:
    """Raise huggingface_hub's errors as the package's, naming repository and revision."""
    try:
        yield
    # HTTPError is the HTTP client's own base class, whichever client this version uses; hf_xet
    # reports a transfer that failed as RuntimeError.
    except (errors.HTTPError, errors.HFValidationError, OSError, RuntimeError) as error:  # type: ignore[attr-defined]
        place = repo if revision is None else f"{repo}@{revision}"
        raise _explained(error, subject, repo, place, filename) from error


def _explained(
    error: Exception, subject: str, repo: str, place: str, filename: str | None
) -> CxrError:
    if isinstance(error, errors.GatedRepoError):
        reason = f"{place} is gated: its owner has not granted you access"
        remedy = "Accept the terms on the model's page, then `hf auth login` or set HF_TOKEN."
        return GatedSource(subject, reason, remedy)
    cause = error.__cause__
    status = _status(error) or _status(cause)
    if isinstance(error, errors.RepositoryNotFoundError):
        reason = f"the Hub has no repository {repo}, or it is private"
        remedy = "Check the name; a private one needs `hf auth login` or HF_TOKEN."
    elif isinstance(error, errors.RevisionNotFoundError):
        reason, remedy = f"{place}: no such revision", "Name a branch, a tag or a commit of it."
    elif isinstance(error, errors.RemoteEntryNotFoundError):
        reason = f"{place} has no file {filename}"
        remedy = "Check the revision; the owner may have moved the file."
    elif isinstance(error, errors.HFValidationError):
        reason = f"{repo!r} is not the id of a repository"
        remedy = "Write it as organisation/name."
    elif status is not None:
        known = (f"the Hub answered with error {status}", "Run it again later.")
        reason, remedy = _STATUS.get(status, known)
        reason = f"{place}: {reason} ({status})"
    elif isinstance(error, errors.OfflineModeIsEnabled) or (
        isinstance(error, errors.LocalEntryNotFoundError)
        and (cause is None or isinstance(cause, errors.OfflineModeIsEnabled))
    ):
        reason = f"{place} is not in the cache, and the network is off"
        remedy = "Fetch it once without HF_HUB_OFFLINE and local_files_only, or copy a cache here."
    elif isinstance(error, errors.FileMetadataError) or isinstance(cause, errors.FileMetadataError):
        reason = f"{place}: the server does not answer like a Hub"
        remedy = "Check HF_ENDPOINT and the proxy."
    elif isinstance(error, OSError) and error.errno is not None:
        return output_failed(cache_root().parent, error)
    else:
        reason = f"{place}: the connection failed ({type(cause or error).__name__})"
        remedy = "Check network, proxy and HF_ENDPOINT, then run it again."
    return SourceUnavailable(subject, reason, remedy)


def _status(error: BaseException | None) -> int | None:
    return error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None


def download(
    repo: str,
    filename: str,
    *,
    revision: str | None,
    token: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
) -> Path:
    """One file into huggingface_hub's cache; its folder is named by the commit.

    Raises:
        Exception: huggingface_hub's own; see `translated`.
    """
    for pause in (*_PAUSES, None):
        try:
            return Path(
                huggingface_hub.hf_hub_download(
                    repo,
                    filename,
                    revision=revision,
                    token=token,
                    cache_dir=None if cache_dir is None else os.fspath(cache_dir),
                    local_files_only=local_files_only,
                )
            )
        except errors.HfHubHTTPError as error:
            if pause is None or error.response.status_code not in _PASSING:
                raise
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def download_folder(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """A published folder out of a repository: the four files of a published folder, by name.

    Nothing else of the repository is looked at: no code, no pickle, no index of other files. All
    four come from the commit that `revision` (default: the main branch) means at the first one.
    The weights are held to the sha256 that the Hub gives with them.

    Returns:
        Folder in huggingface_hub's cache, named by the commit. Its files are links into that
        cache.

    Raises:
        GatedSource: The owner grants access first.
        HashMismatch: Other bytes than the Hub promises, twice.
        OutputFailed: The cache is full or cannot be written.
        SourceUnavailable: No such repository, revision or file; no network and no cached copy.
    """
    check_token(repo_id, token)
    offline = is_offline(local_files_only)

    def get(filename: str, commit: str | None) -> Path:
        return download(
            repo_id,
            filename,
            revision=commit,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )

    commit, folder = revision, Path()
    for filename in (*REQUIRED, *OPTIONAL):
        optional = filename in OPTIONAL
        if optional and _is_known_missing(repo_id, filename, commit, cache_dir):
            continue
        one = functools.partial(get, filename, commit)
        with translated(repo_id, repo=repo_id, revision=revision, filename=filename):
            try:
                path = verified(repo_id, one, sha256=None, size=None, offline=offline)
            except errors.EntryNotFoundError as error:
                if not optional or not (offline or isinstance(error, errors.HfHubHTTPError)):
                    raise
            else:
                folder, commit = path.parent, path.parent.name
    return folder


def _is_known_missing(
    repo: str, filename: str, commit: str | None, cache_dir: str | os.PathLike[str] | None
) -> bool:
    place = None if cache_dir is None else os.fspath(cache_dir)
    found = huggingface_hub.try_to_load_from_cache(repo, filename, place, revision=commit)
    return found is not None and not isinstance(found, str)
