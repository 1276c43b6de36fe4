"""Where files are kept, and how one is known to hold the promised bytes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

from cxr_foundation.errors import HashMismatch, OutputFailed
from cxr_foundation.files import atomic_write, sha256_of

__all__ = ["cache_root", "difference", "is_offline", "is_stamped", "stamp", "verified"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


def cache_root(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Folder of all that the package keeps: `cxr_foundation` in `cache_dir`, else in HF_HOME."""
    home = cache_dir or os.environ.get("HF_HOME") or constants.HF_HOME
    return Path(home).expanduser() / "cxr_foundation"


def is_offline(local_files_only: bool) -> bool:
    """Whether no socket may be opened: asked for, or by HF_HUB_OFFLINE."""
    return local_files_only or huggingface_hub.is_offline_mode()


def stamp(path: str | os.PathLike[str], sha256: str) -> None:
    """Note beside `path` that its bytes, as they are now, have this sha256.

    In a folder that cannot be written there is no stamp; the file is then hashed at each use.
    """
    real = Path(path).resolve()
    state = real.stat()
    facts = {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "sha256": sha256}
    with contextlib.suppress(OutputFailed), atomic_write(_stamp_of(real)) as temporary:
        temporary.write_text(json.dumps(facts))


def is_stamped(path: str | os.PathLike[str], sha256: str) -> bool:
    """Whether `path` was seen with this sha256 and has not been written since."""
    real = Path(path).resolve()
    try:
        state = real.stat()
        facts = json.loads(_stamp_of(real).read_text())
    except (OSError, ValueError):
        return False
    now = {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "sha256": sha256}
    return bool(facts == now)


def difference(
    path: Path, *, sha256: str | None, size: int | None, stamped: bool = True
) -> str | None:
    """How a file differs from what was promised, as a sentence; None if it does not.

    With `stamped`, a file that was found right is stamped, and a stamped one is not read again.
    """
    held = path.stat().st_size
    if size is not None and held != size:
        return f"the file has {held:,} bytes where {size:,} were promised"
    if sha256 is None or (stamped and is_stamped(path, sha256)):
        return None
    digest = sha256_of(path)
    if digest != sha256:
        return f"the file's sha256 is {digest} where {sha256} was promised"
    if stamped:
        stamp(path, sha256)
    return None


def verified(
    name: str,
    get: Callable[[], Path],
    *,
    sha256: str | None,
    size: int | None,
    offline: bool,
) -> Path:
    """The file that `get` returns; one with other bytes is removed, and `get` called once more.

    Args:
        name: Subject of the error.
        get: Returns the cached file, or fetches it where there is none.
        sha256: Promised digest. Where it is None, a file of the Hub's cache is held to the digest
            that the Hub gave with it.
        size: Promised size in bytes, or None.
        offline: No second call.

    Raises:
        HashMismatch: Other bytes twice. The file was removed.
    """
    wrong: str | None = None
    for _ in range(1 if offline else 2):
        path = get()
        wrong = difference(path, sha256=sha256 or _hub_digest(path), size=size)
        if wrong is None:
            return path
        discard(path)
    raise HashMismatch(
        name,
        f"{wrong}; it was not loaded and has been removed",
        "Fetch it again later; if it stays so, the source has changed: please report it.",
    )


def discard(path: Path) -> None:
    """Remove a file, what it links to, and its stamp, as far as the folder can be written."""
    real = path.resolve()
    for file in (_stamp_of(real), path, real):
        with contextlib.suppress(OSError):
            file.unlink()


def output_failed(place: Path, error: OSError) -> OutputFailed:
    """The package's error for a disk that is full or cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        there = next(p for p in (place, *place.absolute().parents) if p.exists())
        free = shutil.disk_usage(there).free
        return OutputFailed(place, f"the disk is full ({free:,} bytes free)")
    return OutputFailed(place, f"the cache cannot be written ({error.strerror})")


def _hub_digest(path: Path) -> str | None:
    # huggingface_hub names the blob of a large file by its sha256, and does not check it.
    name = Path(os.readlink(path)).name if path.is_symlink() else ""
    return name if _SHA256.fullmatch(name) else None


def _stamp_of(real: Path) -> Path:
    return real.with_name(f".{real.name}.stamp")
