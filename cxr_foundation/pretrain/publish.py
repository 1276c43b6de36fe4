"""From a trained encoder to a published folder whose card states how it was made."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
import yaml
from torch import nn

from cxr_foundation import catalog, hub
from cxr_foundation.data import Study
from cxr_foundation.errors import OutputFailed
from cxr_foundation.files import sha256_of
from cxr_foundation.images import phantom
from cxr_foundation.models import published
from cxr_foundation.models.architectures import STOCK
from cxr_foundation.models.verify import golden_embedding
from cxr_foundation.pretrain.method import methods
from cxr_foundation.pretrain.recipe import Recipe

__all__ = ["Facts", "write"]

_TAGS = ("chest-x-ray", "radiology", "self-supervised")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What only the run itself knows.

    Attributes:
        studies: The radiographs of each stage.
        digests: Of their bytes (`pictures.data_digest`), one for each stage.
        figures: Of each stage, the last logged figures and the wall time in "seconds".
        versions: Of the libraries, by name.
        hardware: Device, in words.
    """

    studies: Sequence[Sequence[Study]]
    digests: Sequence[str]
    figures: Sequence[Mapping[str, float]]
    versions: Mapping[str, str]
    hardware: str


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
    stock, model_args = STOCK.get(recipe.encoder.architecture, (recipe.encoder.architecture, {}))
    published.write(
        folder,
        state=state,
        architecture=stock,
        model_args=model_args,
        contract=recipe.contract,
        card_text=catalog.render_card(
            checkpoint, body=_body(checkpoint, recipe, facts), hub_keys=_hub_keys()
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
    unknown = {}
    if push_to is not None:
        unknown["source.revision"] = "a card cannot name the commit that it is part of"
    for key, value in (
        ("licences.weights", publish.licence),
        ("licences.data", publish.data_licence),
        ("training.data", publish.data or None),
        ("training.labels_used_for_selection", publish.labels_used_for_selection),
    ):
        if value is None:
            unknown[key] = "the recipe does not state it"
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
        training=catalog.Training(
            method=_lineage(recipe),
            recipe=recipe.name,
            images=len(_all_studies(facts)),
            data=publish.data,
            overlaps=publish.overlaps,
            labels_used_for_selection=publish.labels_used_for_selection,
        ),
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


def _hub_keys() -> dict[str, object]:
    return {
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "tags": list(_TAGS),
    }


def _lineage(recipe: Recipe) -> str:
    """The methods in the order in which they were trained: "rotation → MoCo v2"."""
    return " → ".join(methods()[stage.method].title for stage in recipe.stages)


def _all_studies(facts: Facts) -> list[Study]:
    """Each radiograph once, however many stages saw it."""
    return list({study.path: study for studies in facts.studies for study in studies}.values())


def _body(checkpoint: catalog.Checkpoint, recipe: Recipe, facts: Facts) -> str:
    """The card's text."""
    studies = _all_studies(facts)
    count = collections.Counter(s.source or "unnamed source" for s in studies)
    by_source = ", ".join(f"{source}: {n:,}" for source, n in sorted(count.items()))
    seconds = sum(figures.get("seconds", 0.0) for figures in facts.figures)
    versions = ", ".join(f"{name} {number}" for name, number in facts.versions.items())
    data = "\n".join(f"- {name}" for name in recipe.publish.data) or "The recipe names no data set."
    as_yaml = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True, width=100)
    size = " × ".join(str(s) for s in recipe.contract.size)
    return _TEXT.format(
        title=checkpoint.title,
        name=checkpoint.name,
        images=f"{len(studies):,}",
        method=checkpoint.training.method,
        repo=checkpoint.source.repo,
        load=_LOAD_HUB.format(repo=checkpoint.source.repo)
        if checkpoint.source.repo
        else _LOAD_FOLDER,
        channels="one grey channel" if recipe.contract.channels == 1 else "grey in three channels",
        size=size,
        mean=", ".join(str(m) for m in recipe.contract.mean or ()),
        std=", ".join(str(s) for s in recipe.contract.std or ()),
        start="random weights" if recipe.start is None else f"`{recipe.start}`",
        data=data,
        by_source=by_source,
        split=", ".join(f"`{s}`" for s in dict.fromkeys(s.data.split for s in recipe.stages)),
        stages=_stages(recipe, facts),
        hours=f"{seconds / 3600:.2f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes",
        hardware=facts.hardware,
        versions=versions,
        recipe=recipe.name,
        yaml=as_yaml.strip(),
        notes=f"\n{recipe.publish.notes.strip()}\n" if recipe.publish.notes else "",
        precision={"fp16": "half", "fp32": "single"}[recipe.publish.precision],
    )


def _stages(recipe: Recipe, facts: Facts) -> str:
    """One row for each stage: what was done on what, and how it ended."""
    rows = []
    for i, stage in enumerate(recipe.stages):
        method = methods()[stage.method]
        ended = "; ".join(
            f"{_FIGURES.get(key, key)} {value:.4g}"
            for key, value in facts.figures[i].items()
            if key != "seconds"
        )
        rows.append(
            f"| {i + 1} | {method.title} ({method.paper}) | {len(facts.studies[i]):,} "
            f"| {stage.train.epochs} | {ended} | `{facts.digests[i]}` |"
        )
    return "\n".join(rows)


_FIGURES = {
    "feature_std": "spread of unit-length features (1 fills the sphere, 0 is collapse)",
    "effective_rank": "effective rank of one batch's features",
    "wins": "queries whose positive beats every negative",
}

_LOAD_FOLDER = """\
import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True)"""

_LOAD_HUB = """\
import timm

model = timm.create_model("hf-hub:{repo}", pretrained=True)"""

_TEXT = """\
# {title}

`{name}` is an image encoder for chest radiographs, pretrained by {method} on {images} radiographs
without their labels. **It is a research tool and not for clinical use.**

## Load it

```python
{load}
```

This gives the encoder without a head. `cxr_foundation.load("FOLDER")` gives the same one, and
`cxr_foundation.processor("FOLDER")` turns DICOM files, pictures and arrays into what it was fed;
plain timm and transformers read 8-bit pictures only and approximate the rest.

## What it was fed

{channels}, {size} pixels, bone bright, normalised with mean {mean} and standard deviation {std} of
pixels in [0, 1]. The front matter states the whole input contract.

## Data

{images} radiographs ({by_source}) of the part {split}:

{data}

## Training

Started from {start}; the recipe `{recipe}` is below in full. The loop took {hours} on {hardware}
(a resumed run counts from its last start). The weights are stored in {precision} precision.

| Stage | Method | Radiographs | Epochs | At its end | SHA-256 over the files' digests |
|---|---|---|---|---|---|
{stages}

Versions: {versions}.

<details><summary>Recipe</summary>

```yaml
{yaml}
```

</details>
{notes}
## Limits

The encoder has seen few hospitals, scanners and age groups; whatever tells the data sets apart
(borders, burned-in letters, picture size) may be part of its features. Measure it on your own data
against simple baselines before you rely on it. It makes no diagnosis.
"""
