"""From a trained encoder to a published folder whose card states how it was made."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from cxr_foundation import catalog, hub
from cxr_foundation.errors import OutputFailed
from cxr_foundation.files import sha256_of
from cxr_foundation.images import phantom
from cxr_foundation.models import published
from cxr_foundation.models.verify import golden_embedding
from cxr_foundation.pretrain.card_body import (
    Facts,
    all_studies,
    body,
    lineage,
    pictures,
    restricts,
)
from cxr_foundation.pretrain.recipe import Recipe
from cxr_foundation.pretrain.starts import Start, network_of

__all__ = ["Facts", "write"]

_OF_RADIOGRAPHS = ("chest-x-ray", "radiology")


def write(
    folder: Path, encoder: nn.Module, recipe: Recipe, facts: Facts, *, push_to: str | None = None
) -> Path:
    """Publish an encoder into `folder`, and from there to the Hub if `push_to` is given.

    Args:
        folder: Must not exist.
        encoder: On the CPU; it is rounded to the published precision.
        recipe: Of the run.
        facts: Of the run.
        push_to: "org/name" on the Hub.

    Raises:
        OutputExists: The folder is there.
        OutputFailed: The disk is full or not writable.
        PushRefused: The recipe names no licence.
    """
    state = _rounded(encoder, recipe.publish.precision)
    # The golden embedding is of the published file, not of what it was rounded from.
    encoder.load_state_dict(
        {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
    )
    content = safetensors.torch.save(state, metadata={"format": "pt"})
    digest = hashlib.sha256(content).hexdigest()
    checkpoint = _checkpoint(
        encoder, recipe, facts, sha256=digest, size_bytes=len(content), push_to=push_to
    )
    stock, model_args = network_of(recipe)
    published.write(
        folder,
        state=state,
        architecture=stock,
        model_args=model_args,
        contract=recipe.contract,
        card_text=catalog.render_card(
            checkpoint, body=body(checkpoint, recipe, facts), hub_keys=_hub_keys(recipe)
        ),
        tag=recipe.publish.tag,
    )
    if sha256_of(published.weights_of(folder)) != digest:
        raise OutputFailed(folder, "the weights on the disk are not those that were written")
    if push_to is not None:
        hub.push(folder, push_to)
    return folder


def _rounded(encoder: nn.Module, precision: str) -> dict[str, torch.Tensor]:
    kind = {"fp16": torch.float16, "fp32": torch.float32}[precision]
    return {
        name: (t.to(kind) if t.is_floating_point() else t).contiguous()
        for name, t in encoder.state_dict().items()
    }


def _checkpoint(
    encoder: nn.Module,
    recipe: Recipe,
    facts: Facts,
    *,
    sha256: str,
    size_bytes: int,
    push_to: str | None,
) -> catalog.Checkpoint:
    name = f"{recipe.encoder.architecture}.{recipe.publish.tag}"
    embedding = golden_embedding(encoder, recipe.contract)
    this_run = catalog.Evidence(
        verified="bytes",
        source=f"cxr pretrain {recipe.name}, cxr_foundation {facts.versions['cxr_foundation']}",
        date=datetime.date.today().isoformat(),
    )
    stated = catalog.Evidence(verified="page", source=f"recipe {recipe.name}", date=this_run.date)
    source = (
        catalog.Source(kind="bundled", path=name, sha256=sha256, size_bytes=size_bytes)
        if push_to is None
        else catalog.Source(kind="hub", repo=push_to, sha256=sha256, size_bytes=size_bytes)
    )
    publish = recipe.publish
    training, unknown = _history(recipe, facts.start)
    training = dataclasses.replace(training, images=len(all_studies(facts)))
    if push_to is not None:
        unknown["source.revision"] = "a card cannot name the commit that it is part of"
    for key, value in (
        ("licences.weights", publish.licence),
        ("licences.data", publish.data_licence),
        ("training.labels_used_for_selection", publish.labels_used_for_selection),
    ):
        if value is None:
            unknown[key] = "the recipe does not state it"
    if publish.licence is None and facts.start is not None and restricts(facts.start.licence):
        licence = facts.start.licence or "unknown"
        unknown["licences.weights"] += f", and the licence of its start is {licence}"
    return catalog.Checkpoint(
        name=name,
        architecture=recipe.encoder.architecture,
        title=publish.title,
        default=False,
        num_features=len(embedding),
        source=source,
        conversion=catalog.Conversion(layout=None, takes=None, ran_on_authors_file=True),
        contract=recipe.contract,
        licences=catalog.Licences(
            code="apache-2.0", weights=publish.licence, data=publish.data_licence
        ),
        gating=None,
        training=training,
        citation=publish.citation,
        results=(),
        golden=catalog.Golden(phantom=phantom.NAME, embedding=tuple(float(v) for v in embedding)),
        evidence={
            **dict.fromkeys(
                ("architecture", "num_features", "source", "conversion", "contract", "training"),
                this_run,
            ),
            "golden": this_run,
            "licences": stated,
            **({"citation": stated} if publish.citation is not None else {}),
        },
        unknown=unknown,
    )


def _history(recipe: Recipe, start: Start | None) -> tuple[catalog.Training, dict[str, str]]:
    """What encoder and start were trained on, and why what is unknown of it is.

    A start hands on what it has seen: what is tested on these pictures is not tested.
    """
    publish = recipe.publish
    data, overlaps, unknown = publish.data, publish.overlaps, {}
    if start is not None:
        data = tuple(dict.fromkeys((*(start.data or ()), *data)))
        overlaps = tuple(dict.fromkeys((*(start.overlaps or ()), *overlaps)))
        silent = f"nothing says what the start ({start.name}) was trained on"
        if start.data is None and data:
            data = (*data, f"whatever {start.name} was trained on")
        if start.overlaps is None and not overlaps:
            unknown["training.overlaps"] = silent
    if not data:
        unknown["training.data"] = "the recipe does not state it"
    training = catalog.Training(
        method=lineage(recipe, start),
        recipe=recipe.name,
        images=None,
        data=data,
        overlaps=overlaps,
        labels_used_for_selection=publish.labels_used_for_selection,
    )
    return training, unknown


def _hub_keys(recipe: Recipe) -> dict[str, object]:
    seen = "radiographs" in pictures(recipe)
    return {
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "tags": [*(_OF_RADIOGRAPHS if seen else ()), "self-supervised"],
    }
