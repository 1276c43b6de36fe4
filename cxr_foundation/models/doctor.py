"""Is this installation sound, and can a model be had? Asked before anything is downloaded.

Versions are read from the installed metadata, and every library is imported where it is looked at:
a missing one is found, not stumbled over. Requests go to HF_ENDPOINT and to the address of the one
card that is asked about, and to nobody else.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import ParamSpec

import cxr_foundation
from cxr_foundation._version import __version__
from cxr_foundation.errors import SourceUnavailable
from cxr_foundation.models.checks import Check, Verdict, size

__all__ = ["Check", "Verdict", "doctor"]

P = ParamSpec("P")

OURS, GOOGLES = "cxr-foundation-hub", "cxr-foundation"
_PATIENCE_S = 4.0
_NO_NETWORK = "Check network, proxy and HF_ENDPOINT; what is in the cache works without them."
_LITTLE_SPACE = 2 * 10**9  # bytes: a ViT-L and its converted copy
_NEEDED = (
    "torch", "torchvision", "timm", "transformers", "huggingface_hub", "safetensors", "numpy",
    "pydicom", "pillow",
)  # fmt: skip
"""What is looked for where our own metadata is not there to say."""


def doctor(
    name: str | None = None,
    *,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Verdict:
    """Look at the installation, or at whether the weights of `name` can be had.

    Nothing is downloaded, written or removed. A request has a few seconds; what is not asked, or
    not answered, is "unknown" with the reason.

    Args:
        name: As in `create_model`; None: versions, DICOM decoders, devices, cache, token, Hub.
        token: As in huggingface_hub; never printed.
        cache_dir: As in huggingface_hub.
        local_files_only: Open no socket.

    Returns:
        One check for each thing; an unknown name is a failed check, not an error.
    """
    if name is not None:
        return Verdict(
            name, (_package(), *_guarded(_availability, name, token, cache_dir, local_files_only))
        )
    checks = [_package(), *_versions()]
    try:
        pending = _started(token, local_files_only)
    except ImportError as error:
        return Verdict(None, (*checks, _missing(error), *_devices(), *_guarded(_decoders)))
    # The Hub is asked while torch is imported, which takes about as long.
    machine = [*_devices(), *_guarded(_decoders), *_caches(cache_dir)]
    return Verdict(None, (*checks, *machine, *_hub(pending, token)))


def _availability(
    name: str,
    token: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
) -> list[Check]:
    from cxr_foundation.hub.cache import is_offline
    from cxr_foundation.models.availability import checks_of

    offline = is_offline(local_files_only)
    return checks_of(name, token=token, cache_dir=cache_dir, offline=offline)


def _started(token: str | None, local_files_only: bool) -> Future[int] | None:
    """The request to the Hub, on its way; None where none may be made."""
    from cxr_foundation.hub import presence
    from cxr_foundation.hub.cache import is_offline

    if is_offline(local_files_only):
        return None
    return presence.started(lambda: presence.ask_hub(token))


def _guarded(look: Callable[P, list[Check]], *args: P.args, **kwargs: P.kwargs) -> list[Check]:
    """What `look` finds; where a library that it needs is not there, that."""
    try:
        return look(*args, **kwargs)
    except ImportError as error:
        return [_missing(error)]


def _missing(error: ImportError) -> Check:
    remedy = f"pip install {OURS}; `cxr doctor` lists what is needed."
    return Check("libraries", "fail", _line(error), remedy)


def _package() -> Check:
    """Whether what is imported as `cxr_foundation` is this package, and the only one."""
    place = Path(__file__).resolve().parents[1]
    imported = Path(cxr_foundation.__file__ or "").resolve().parent
    detail = f"{__version__} in {place}"
    theirs = _installed(GOOGLES)
    if theirs is not None:
        reason = f"Google's {GOOGLES} {theirs} is installed too, and both are `cxr_foundation`"
        remedy = (
            f"pip uninstall -y {GOOGLES} {OURS}, then pip install {OURS}; keep the other in an"
            " environment of its own."
        )
        return Check("package", "fail", reason, remedy)
    again = f"pip uninstall -y {OURS}, then pip install {OURS}."
    if imported != place or getattr(cxr_foundation, "__version__", None) != __version__:
        reason = f"`cxr_foundation` is imported from {imported} and is not this package"
        return Check("package", "fail", reason, f"Remove what shadows it, or {again}")
    installed = _installed(OURS)
    if installed is None:
        reason = f"{detail}, imported but not installed"
        return Check("package", "warn", reason, "pip install -e . in its folder.")
    if installed != __version__:
        reason = f"{detail}, but {installed} is what pip installed"
        return Check("package", "warn", reason, again)
    return Check("package", "ok", detail)


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> list[Check]:
    """Python and each library that is needed, held to the versions that we declare."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_name

    try:
        ours = importlib.metadata.distribution(OURS)
        declared = ours.requires or []
        pythons = "".join(ours.metadata.get_all("Requires-Python") or [])
    except importlib.metadata.PackageNotFoundError:
        declared, pythons = list(_NEEDED), ""
    fits = SpecifierSet(pythons).contains(platform.python_version(), prereleases=True)
    remedy = "" if fits else f"Python {pythons} is needed."
    checks = [Check("python", "ok" if fits else "fail", platform.python_version(), remedy)]
    for requirement in map(Requirement, declared):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, wanted = canonicalize_name(requirement.name), str(requirement.specifier)
        found, install = _installed(name), f'pip install "{name}{wanted}"'
        if found is None:
            checks.append(Check(name, "fail", "not installed", install))
        elif not requirement.specifier.contains(found, prereleases=True):
            checks.append(Check(name, "fail", f"{found}, where {wanted} is needed", install))
        else:
            checks.append(Check(name, "ok", found))
    return checks


def _devices() -> list[Check]:
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    checks = [Check("cpu", "ok", f"{cores} cores, {_memory()}")]
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken build raises anything, OSError of its libraries first
        detail = f"torch cannot be imported ({type(error).__name__}: {_line(error)})"
        return [*checks, Check("gpu", "fail", detail, "Install torch again: https://pytorch.org.")]
    return [*checks, _gpu(torch)]


def _gpu(torch: ModuleType) -> Check:
    try:
        if torch.cuda.is_available():
            cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
            found = [f"cuda:{i} {c.name} ({size(c.total_memory)})" for i, c in enumerate(cards)]
            return Check("gpu", "ok", ", ".join(found))
        if torch.backends.mps.is_available():
            return Check("gpu", "ok", "mps")
    except RuntimeError as error:
        remedy = "Compare driver and torch: nvidia-smi, https://pytorch.org."
        return Check("gpu", "warn", f"does not answer ({_line(error)})", remedy)
    if Path("/proc/driver/nvidia/version").exists():
        built = f"torch is built for {torch.version.cuda or 'the CPU alone'}"
        remedy = "Install a torch that fits the driver: https://pytorch.org."
        return Check(
            "gpu", "warn", f"an NVIDIA driver is there, but no usable GPU; {built}", remedy
        )
    return Check("gpu", "ok", "none; everything also runs on the CPU")


def _memory() -> str:
    try:
        return f"{size(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))} of memory"
    except (AttributeError, ValueError, OSError):
        return "memory unknown"


def _decoders() -> list[Check]:
    """One check for each transfer syntax; few sites need them all, so a gap is a warning."""
    from cxr_foundation.images.decoders import decodable

    checks = []
    for syntax in decodable():
        name = f"{syntax.name} ({syntax.uid})"
        if syntax.decoded:
            checks.append(Check("dicom", "ok", f"{name}: decoded"))
        else:
            checks.append(Check("dicom", "warn", f"{name}: no decoder", syntax.remedy))
    return checks


def _caches(cache_dir: str | os.PathLike[str] | None) -> list[Check]:
    """The folder of conversions, and the Hub's where it lies elsewhere."""
    from cxr_foundation.hub import cache_root, presence

    ours, hubs = cache_root(cache_dir), presence.hub_cache(cache_dir)
    folders = (
        {"cache": ours}
        if ours.parent in (hubs, hubs.parent)
        else {"cache": ours, "hub cache": hubs}
    )
    return [_cache(name, folder) for name, folder in folders.items()]


def _cache(name: str, folder: Path) -> Check:
    """A folder of files that are kept: whether it can be written, and what is free."""
    elsewhere = "Set HF_HOME to a folder that can be written."
    there = next((p for p in (folder, *folder.absolute().parents) if p.exists()), None)
    if there is None or not there.is_dir():
        return Check(name, "fail", f"{folder} cannot be made: {there} is not a folder", elsewhere)
    try:
        # As root every folder looks writable; only writing tells.
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Check(name, "fail", f"{folder} cannot be written ({error.strerror})", elsewhere)
    free = shutil.disk_usage(there).free
    detail = f"{folder}, {size(free)} free"
    if free < _LITTLE_SPACE:
        return Check(name, "warn", detail, "Little space: free some, or set HF_HOME elsewhere.")
    return Check(name, "ok", detail)


def _hub(pending: Future[int] | None, token: str | None) -> list[Check]:
    """The token, and the Hub's endpoint; one request answers for both."""
    from cxr_foundation.hub import presence

    address, status = presence.endpoint(), 0
    if pending is None:
        hub = Check("hub", "unknown", f"{address}: not asked (offline)")
    else:
        try:
            status = pending.result(timeout=_PATIENCE_S)
            hub = Check("hub", "ok", f"{address} answers")
            if status >= 500:
                hub = Check("hub", "warn", f"{address} answers with error {status}", "Try later.")
        except TimeoutError:
            hub = Check("hub", "warn", f"{address} does not answer", _NO_NETWORK)
        except SourceUnavailable as error:
            hub = Check("hub", "warn", error.reason, _NO_NETWORK)
    return [_token(token, status), hub]


def _token(token: str | None, status: int) -> Check:
    """The token, given what the Hub answered to it; 0 is no answer."""
    from cxr_foundation.hub import presence

    known = token or presence.implicit_token()
    if known is None:
        return Check("token", "ok", "none; only gated and private models need one")
    try:
        presence.check_token("token", known)
    except SourceUnavailable as error:
        return Check("token", "fail", f"present, but {error.reason}", error.remedy)
    if status == 401:
        remedy = "Log in again with `hf auth login`, or mend HF_TOKEN."
        return Check("token", "fail", "present, but the Hub does not accept it", remedy)
    if status == 200:
        return Check("token", "ok", "present, and the Hub accepts it")
    return Check("token", "unknown", "present; the Hub did not say whether it accepts it")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
