"""A published folder → a repository, in one commit, or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import huggingface_hub
from safetensors import SafetensorError, safe_open

from cxr_foundation.catalog import Checkpoint, hub_keys_of, read_record
from cxr_foundation.data.walking import PICTURES
from cxr_foundation.errors import CardError, PushRefused
from cxr_foundation.files import sha256_of
from cxr_foundation.hub.repository import OPTIONAL, REQUIRED, check_token, translated

__all__ = ["PushResult", "push"]

CARD = "README.md"
NEEDED = (*REQUIRED, CARD)
# An allow-list: radiographs, pickles, code and whatever else lies about are never published.
ALLOWED = {*REQUIRED, *OPTIONAL, "LICENSE", "NOTICE", "recipe.yaml", "results.json"}
# How PNG, JPEG and both byte orders of TIFF begin.
_PICTURE_HEADS = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PushResult:
    """Where a folder went.

    Attributes:
        url: The repository's page.
        commit: 40-digit commit that holds the files.
    """

    url: str
    commit: str


def push(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    message: str | None = None,
) -> PushResult:
    """Publish a folder on the Hub of HF_ENDPOINT, as one commit of exactly its files.

    Everything is checked before the first request. The repository is made if it is not there;
    files that it holds under other names stay. The same folder again makes no new commit.

    Args:
        folder: A published folder: `model.safetensors`, `config.json`, `README.md` (the card), and
            of `preprocessor_config.json`, `recipe.yaml`, `results.json`, `LICENSE`, `NOTICE` any.
        repo_id: "organisation/name".
        private: Make a new repository private; one that is there stays as it is.
        token: As in huggingface_hub; needs the right to write.
        revision: A branch that is there; default: the main branch.
        message: Of the commit.

    Raises:
        PushRefused: A file is missing or must not be published, as no picture may; the card is
            invalid or names no licence. Nothing was sent, or only the card to the Hub's own
            validation.
        SourceUnavailable: The Hub is not reached or refuses. The repository holds the old commit.
    """
    root = Path(folder)
    _check_names(root)
    checkpoint = _check_card(root / CARD)
    for name in ("config.json", "preprocessor_config.json"):
        _check_config(root / name)
    _check_weights(root / "model.safetensors", checkpoint)
    check_token(repo_id, token)
    api = huggingface_hub.HfApi(token=token)
    additions = [
        huggingface_hub.CommitOperationAdd(path.name, path) for path in sorted(root.iterdir())
    ]
    with translated(repo_id, repo=repo_id, revision=revision):
        try:
            # Before the repository is made: a card that the Hub refuses leaves nothing behind.
            huggingface_hub.ModelCard((root / CARD).read_text(encoding="utf-8")).validate()
            page = api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.create_commit(
                repo_id,
                additions,
                commit_message=message or f"Publish {checkpoint.name}",
                revision=revision,
            )
        except ValueError as error:
            if isinstance(error, huggingface_hub.errors.HFValidationError | OSError):
                raise
            raise PushRefused(root / CARD, f"the Hub refuses the card: {error}") from error
    return PushResult(url=str(page), commit=commit.oid)


def _check_names(root: Path) -> None:
    if not root.is_dir():
        raise PushRefused(root, "not a folder", "Name a published folder: `cxr convert` makes one.")
    for path in sorted(root.iterdir()):
        if path.is_symlink():
            raise PushRefused(path, "is a symbolic link", "Put the file itself there.")
        _check_picture(path)
        if path.name not in ALLOWED or not path.is_file():
            remedy = f"Take it out of the folder; published are {', '.join(sorted(ALLOWED))}."
            raise PushRefused(path, "is not a file of a published folder", remedy)
    for name in NEEDED:
        if not (root / name).is_file():
            raise PushRefused(root, f"has no {name}", "`cxr convert` writes complete folders.")


def _check_picture(path: Path) -> None:
    """Refuse a picture, whatever it is called; it may show a patient's name.

    Raises:
        PushRefused: It is one, and the reason says whether letters are in it or it is damaged.
    """
    if not path.is_file() or path.suffix == ".safetensors":
        return
    if path.suffix.lower() not in PICTURES and not _begins_like_one(path):
        return
    from cxr_foundation.data.site import check_file
    from cxr_foundation.images.guard import may_be_shown

    checked = check_file(path)
    reason = "is a picture, which no published folder holds"
    if checked.refused:
        reason = f"is a picture that cannot be read ({checked.refused}): nobody knows what it shows"
    elif not may_be_shown(checked.notices):
        reason = "is a picture with letters in its pixels, which may name a patient"
    raise PushRefused(path, reason, "Take it out of the folder.")


def _begins_like_one(path: Path) -> bool:
    from cxr_foundation.images.header import is_dicom

    # A LICENSE that is a radiograph is a radiograph.
    with open(path, "rb") as file:
        head = file.read(1024)
    return head.startswith(_PICTURE_HEADS) or is_dicom(head)


def _check_card(path: Path) -> Checkpoint:
    try:
        checkpoint = read_record(path)
        licence = hub_keys_of(path).get("license")
    except CardError as error:
        raise PushRefused(error.subject, error.reason, error.remedy) from error
    if licence is None or licence == "unknown":
        raise PushRefused(
            path,
            "names no licence",
            "Set `license` to what the owners of the weights allow; without it nobody may use them",
        )
    return checkpoint


def _check_config(path: Path) -> None:
    if not path.exists():
        return
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise PushRefused(path, f"is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise PushRefused(path, "is not a JSON object")
    for key in ("auto_map", "custom_pipelines"):
        if key in config:
            raise PushRefused(path, f"has {key}, which names code to be run", f"Remove {key}.")


def _check_weights(path: Path, checkpoint: Checkpoint) -> None:
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata()
    except (SafetensorError, OSError) as error:
        raise PushRefused(path, f"is not a sound safetensors file ({error})") from error
    if metadata != {"format": "pt"}:
        reason = 'its header holds other metadata than {"format": "pt"}'
        raise PushRefused(path, reason, "Facts belong in the card: write the folder again.")
    # The sha256 of a published folder is that of its weights, else of the file it came from.
    promised = checkpoint.source.sha256 if checkpoint.source.published else None
    if promised is not None and sha256_of(path) != promised:
        raise PushRefused(path, "is not the file whose sha256 the card gives")
