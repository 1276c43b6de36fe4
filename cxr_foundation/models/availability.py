"""Can `create_model(NAME, pretrained=True)` work here, and what does it need? Asked beforehand.

Whatever a load would import is imported, timm and torch included, so that it is also seen whether
it can be; meanwhile the one server is asked.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import shutil
from concurrent.futures import Future
from pathlib import Path

from cxr_foundation import catalog, hub
from cxr_foundation.catalog import Checkpoint
from cxr_foundation.errors import CardError, GatedSource, SourceError, UnknownName
from cxr_foundation.hub import presence
from cxr_foundation.models.checks import Check, Status, size

__all__ = ["checks_of"]

_PATIENCE_S = 10.0  # for a HEAD that is redirected several times


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Case:
    """One card here and now.

    Attributes:
        record: The card.
        cache_dir: As in huggingface_hub.
        offline: No socket may be opened.
        raw: The authors' file, where it is in the cache.
        converted: The converted file, where it is in the cache.
        answer: What the server said of the file; None: it was not asked, or refused.
        refusal: Why the server does not give the file.
    """

    record: Checkpoint
    cache_dir: str | os.PathLike[str] | None
    offline: bool
    raw: Path | None
    converted: Path | None
    answer: presence.Answer | None = None
    refusal: SourceError | None = None

    @property
    def held(self) -> bool:
        """Whether a load needs no network."""
        return self.raw is not None or self.converted is not None

    @property
    def by_hand(self) -> str:
        """The door for a file that the user has."""
        return f"`cxr convert FILE OUT_DIR --name {self.record.name}`"


def checks_of(
    name: str,
    *,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
) -> list[Check]:
    """What stands between a name and its encoder.

    Args:
        name: A card, or an architecture, which means its default card.
        token: As in huggingface_hub.
        cache_dir: As in huggingface_hub.
        offline: Open no socket.
    """
    try:
        record = catalog.checkpoint(name)
    except (UnknownName, CardError) as error:
        return [Check("name", "fail", error.reason, error.remedy)]
    named = Check("name", "ok", f"{record.name}: {record.title}")
    raw = presence.held(record.source, cache_dir=cache_dir)
    pending = None
    if record.source.kind in ("hub", "url") and raw is None and not offline:
        pending = presence.started(
            lambda: presence.ask(record.source, name=record.name, token=token)
        )
    try:
        # Timm before any module of ours that its import registers.
        importlib.import_module("timm")
        importlib.import_module("cxr_foundation.models.loading")
    except Exception as error:  # a broken library raises anything
        detail = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        return [named, Check("libraries", "fail", detail, "`cxr doctor` names what is missing.")]
    from cxr_foundation.models.sources import converted_path

    converted = converted_path(record, raw, cache_dir=cache_dir)
    case = _Case(record=record, cache_dir=cache_dir, offline=offline, raw=raw, converted=converted)
    if pending is not None and not case.held:
        case = _asked(case, pending)
    return [named, *_place(case), _converter(case), *_facts(case), _dicom()]


def _asked(case: _Case, pending: Future[presence.Answer]) -> _Case:
    try:
        return dataclasses.replace(case, answer=pending.result(timeout=_PATIENCE_S))
    except SourceError as error:
        return dataclasses.replace(case, refusal=error)
    except TimeoutError:
        refusal = SourceError(
            case.record.name, "the server does not answer", "Check network and proxy."
        )
        return dataclasses.replace(case, refusal=refusal)


def _place(case: _Case) -> list[Check]:
    """Where the file is, and whether it can be had from there."""
    source = case.record.source
    if source.kind == "ask":
        reason = "its authors give the file to those who ask"
        how = f"{source.how} " if source.how else ""
        return [Check("source", "fail", reason, f"{how}Then {case.by_hand}.")]
    if source.kind == "bundled":
        try:
            path = hub.fetch(source, name=case.record.name)
        except SourceError as error:
            return [Check("source", "fail", error.reason, error.remedy)]
        return [Check("source", "ok", f"bundled: {path}")]
    from cxr_foundation.models.sources import address

    where = address(case.record) or source.repo or source.url or source.file_id
    pinned = ", not pinned" if source.kind == "hub" and source.revision is None else ""
    checks = [Check("source", "ok", f"{source.kind}: {where}{pinned}")]
    return [*checks, _cache(case), _server(case), *_access(case), _disk(case), _sha256(case)]


def _cache(case: _Case) -> Check:
    if case.converted is not None:
        return Check("cache", "ok", f"converted: {case.converted}")
    if case.raw is not None:
        later = "" if case.record.source.published else "; it is converted by the first load"
        return Check("cache", "ok", f"fetched: {case.raw}{later}")
    if case.offline:
        remedy = f"Fetch it once with the network on. With a copy of your own: {case.by_hand}."
        return Check("cache", "fail", "not fetched yet, and the network is off", remedy)
    return Check("cache", "ok", "not fetched yet")


def _server(case: _Case) -> Check:
    """Whether the server has the file that the card promises."""
    source, answer = case.record.source, case.answer
    if case.held:
        return Check("server", "ok", "not asked: the file is here")
    if case.offline:
        return Check("server", "unknown", "not asked (offline)")
    if source.kind == "google_drive":
        detail = "not asked: Google Drive cannot be asked without starting the download"
        page = f"https://drive.google.com/file/d/{source.file_id}/view"
        return Check("server", "unknown", detail, f"If it refuses: {page}, then {case.by_hand}.")
    if isinstance(case.refusal, GatedSource):
        return Check("server", "ok", "answers")
    if case.refusal is not None:
        return Check("server", "fail", case.refusal.reason, case.refusal.remedy)
    told = None if answer is None else answer.size
    if None not in (told, source.size_bytes) and told != source.size_bytes:
        detail = f"its file has {told:,} bytes where the card promises {source.size_bytes:,}"
        return Check("server", "fail", detail, "The source has changed: please report it.")
    if answer and answer.sha256 and source.sha256 and answer.sha256 != source.sha256:
        detail = "its file has another sha256 than the card promises"
        return Check("server", "fail", detail, "The source has changed: please report it.")
    return Check("server", "ok", "has the file" + (f", {size(told)}" if told is not None else ""))


def _access(case: _Case) -> list[Check]:
    """What the owner asks for, and whether this user has it."""
    gating = case.record.gating
    if isinstance(case.refusal, GatedSource):
        return [Check("access", "fail", case.refusal.reason, case.refusal.remedy)]
    if case.held or (gating is None and case.refusal is not None):
        return []
    if case.answer is not None:
        return [Check("access", "ok", "granted" if gating else "anyone may fetch it")]
    if gating is None:
        return [Check("access", "ok", "the card names no condition")]
    remedy = "Meet the owner's terms, then `hf auth login` or set HF_TOKEN."
    return [Check("access", "warn", f"not asked; the owner's terms: {gating}", remedy)]


def _disk(case: _Case) -> Check:
    """Bytes of the download and of the converted copy against what is free for each."""
    if case.converted is not None or (case.held and case.record.source.published):
        return Check("disk", "ok", "nothing is written")
    needs: dict[Path, int] = {}
    ours = hub.cache_root(case.cache_dir)
    told = case.record.source.size_bytes or (case.answer.size if case.answer else None)
    if case.raw is None and told is not None:
        from_hub = case.record.source.kind == "hub"
        needs[presence.hub_cache(case.cache_dir) if from_hub else ours] = told
    if not case.record.source.published:
        needs[ours] = needs.get(ours, 0) + _network_bytes(case.record)
    # Folders of one disk share what is free there.
    by_disk: dict[int, tuple[Path, int]] = {}
    for folder, count in needs.items():
        there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        device = there.stat().st_dev
        by_disk[device] = there, count + by_disk.get(device, (there, 0))[1]
    for there, count in by_disk.values():
        free = shutil.disk_usage(there).free
        if free < count:
            detail = f"{size(count)} are needed in {there}, {size(free)} are free"
            return Check("disk", "fail", detail, "Free some space, or set HF_HOME elsewhere.")
    total = size(sum(needs.values()))
    if case.raw is None and told is None:
        return Check("disk", "unknown", f"{total} and the download, whose size nobody says")
    return Check("disk", "ok", f"{total} are needed and free")


def _network_bytes(record: Checkpoint) -> int:
    """Size of the converted file: float32, every tensor of the stock network."""
    from timm.models import model_entrypoint

    from cxr_foundation.models.architectures import STOCK, cfg_of
    from cxr_foundation.models.build import origin_of
    from cxr_foundation.models.meta import on_meta

    origin = origin_of(*STOCK[record.architecture], cfg_of(record))
    with on_meta():
        network = model_entrypoint(origin.stock)(num_classes=0, **origin.model_args)
    return sum(t.numel() * t.element_size() for t in network.state_dict().values())


def _sha256(case: _Case) -> Check:
    if case.record.source.sha256 is not None:
        return Check("sha256", "ok", f"{case.record.source.sha256}, held to it when fetched")
    if case.answer is not None and case.answer.sha256 is not None:
        return Check("sha256", "warn", "not in the card; the file is held to the Hub's own")
    why = case.record.unknown.get("source.sha256")
    detail = "not in the card" + (f" ({why})" if why else "")
    return Check("sha256", "warn", f"{detail}: what is fetched cannot be compared")


def _converter(case: _Case) -> Check:
    from cxr_foundation.convert import layouts

    conversion = case.record.conversion
    if case.record.source.published:
        return Check("converter", "ok", "none needed")
    if conversion.layout is None:
        why = case.record.unknown.get("conversion.layout")
        detail = "no converter knows its file" + (f" ({why})" if why else "")
        return Check("converter", "fail", detail, f"`cxr show {case.record.name}` says more.")
    if conversion.layout not in layouts:
        detail = f"this version has no converter called {conversion.layout!r}"
        return Check("converter", "fail", detail, "Install a newer cxr-foundation-hub.")
    detail = conversion.layout + (f", takes {conversion.takes}" if conversion.takes else "")
    if conversion.ran_on_authors_file:
        return Check("converter", "ok", detail)
    detail += "; never run on the authors' file"
    return Check("converter", "warn", detail, "If it refuses, `cxr inspect FILE` says why.")


def _facts(case: _Case) -> list[Check]:
    """What the card says, or does not, about using the weights once they are here."""
    record = case.record
    licence, golden = record.licences.weights, record.golden is not None
    why = record.unknown.get("licences.weights", "the card gives none")
    allowed = Check("licence", "ok", f"weights: {licence}")
    if licence is None:
        detail = f"weights: unknown ({why})"
        allowed = Check("licence", "warn", detail, "Ask the authors before you use or share them.")
    complete = Check("input", "ok", "known")
    if not record.contract.complete:
        unknown = [k for k in record.unknown if k.startswith("contract.")]
        detail = f"not fully known ({', '.join(unknown)}): processor() refuses, the encoder loads"
        complete = Check("input", "warn", detail, "Prepare images as the authors' code does.")
    found = "the card has a golden embedding" if golden else "the card has no golden embedding"
    status: Status = "ok" if golden else "unknown"
    return [allowed, complete, Check("verify", status, found)]


def _dicom() -> Check:
    """Whether radiographs can be read; pictures need nothing that is not installed."""
    from cxr_foundation.images.decoders import decodable

    found = decodable()
    missing = [s for s in found if not s.decoded]
    remedies = {s.remedy: None for s in missing if s.remedy.startswith("pip")}
    detail = f"{len(found) - len(missing)} of {len(found)} transfer syntaxes are decoded"
    if missing:
        detail += f"; not {', '.join(s.name for s in missing)}"
    return Check("dicom", "warn" if remedies else "ok", detail, " ".join(remedies))
