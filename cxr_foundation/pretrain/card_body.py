"""What the card of a pretrained encoder says below its front matter."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cxr_foundation.catalog import Checkpoint
from cxr_foundation.data import Study
from cxr_foundation.pretrain.method import methods
from cxr_foundation.pretrain.recipe import Recipe
from cxr_foundation.pretrain.starts import Start

__all__ = ["Facts", "all_studies", "body", "lineage", "pictures", "restricts"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What only the run itself knows.

    Attributes:
        studies: The radiographs of each stage.
        digests: Of their bytes (`pictures.data_digest`), one for each stage.
        figures: Of each stage, the last logged figures and the wall time in "seconds".
        versions: Of the libraries, by name.
        hardware: Device, in words.
        processes: That trained together.
        start: What the run started from; None for random weights.
    """

    studies: Sequence[Sequence[Study]]
    digests: Sequence[str]
    figures: Sequence[Mapping[str, float]]
    versions: Mapping[str, str]
    hardware: str
    processes: int = 1
    start: Start | None = None


def all_studies(facts: Facts) -> list[Study]:
    """Each radiograph once, however many stages saw it."""
    return list({study.path: study for studies in facts.studies for study in studies}.values())


def lineage(recipe: Recipe, start: Start | None) -> str:
    """Start and methods in their order: "supervised (timm:resnet50.a1_in1k) → MoCo v2"."""
    steps = [methods()[stage.method].title for stage in recipe.stages]
    if start is not None:
        first = start.name if start.method is None else f"{start.method} ({start.name})"
        steps.insert(0, first)
    return " → ".join(steps)


def pictures(recipe: Recipe) -> str:
    """What a run saw, in words."""
    colours = {stage.data.colour for stage in recipe.stages}
    if colours == {False}:
        return "radiographs"
    return "colour pictures" if colours == {True} else "radiographs and colour pictures"


def restricts(licence: str | None) -> bool:
    """Whether a licence is unknown, or does not let everybody use what it is given for."""
    words = r"\bnc\b|non-?commercial|research|other|unknown"
    return licence is None or re.search(words, licence, re.IGNORECASE) is not None


def body(checkpoint: Checkpoint, recipe: Recipe, facts: Facts) -> str:
    """The card's text."""
    studies = all_studies(facts)
    count = collections.Counter(s.source or "unnamed source" for s in studies)
    by_source = ", ".join(f"{source}: {n:,}" for source, n in sorted(count.items()))
    seconds = sum(figures.get("seconds", 0.0) for figures in facts.figures)
    versions = ", ".join(f"{name} {number}" for name, number in facts.versions.items())
    data = "\n".join(f"- {name}" for name in recipe.publish.data) or "The recipe names no data set."
    as_yaml = yaml.safe_dump(_shown(recipe), sort_keys=False, allow_unicode=True, width=100)
    size = " × ".join(str(s) for s in recipe.contract.size)
    what = pictures(recipe)
    return _TEXT.format(
        title=checkpoint.title,
        name=checkpoint.name,
        purpose="an image encoder" if "radiographs" not in what else _PURPOSE,
        images=f"{len(studies):,} {what}",
        pictures=what.capitalize(),
        method=checkpoint.training.method,
        load=_LOAD_HUB.format(repo=checkpoint.source.repo)
        if checkpoint.source.repo
        else _LOAD_FOLDER,
        channels=_channels(recipe),
        size=size,
        mean=", ".join(str(m) for m in recipe.contract.mean or ()),
        std=", ".join(str(s) for s in recipe.contract.std or ()),
        start="random weights." if facts.start is None else _start(facts.start, recipe),
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
        limits=_LIMITS if "radiographs" in what else _LIMITS_OF_COLOUR,
        precision={"fp16": "half", "fp32": "single"}[recipe.publish.precision],
    )


def _channels(recipe: Recipe) -> str:
    if recipe.contract.channels == 1:
        return "One grey channel, bone bright"
    if any(stage.data.colour for stage in recipe.stages):
        return "Red, green and blue; a grey radiograph is repeated in all three channels"
    return "Grey in three channels, bone bright"


def _start(start: Start, recipe: Recipe) -> str:
    """Where the weights came from, and what follows from that."""
    told = [f"sha256 `{start.sha256}`" if start.sha256 else "timm does not tell which file it was"]
    told.append(f"licence {start.licence or 'unknown'}")
    if start.data:
        told.append(f"trained on {', '.join(start.data)}")
    sentences = [f"`{start.name}` ({'; '.join(told)})."]
    if start.overlaps is None:
        sentences.append("Nothing says which test pictures it may have seen.")
    elif start.overlaps:
        sentences.append(f"It may have seen pictures of {', '.join(start.overlaps)}.")
    if start.mean is None or start.std is None:
        sentences.append("What its pixels were normalised by is unknown.")
    elif (start.mean, start.std) != (recipe.contract.mean, recipe.contract.std):
        mean, std = (", ".join(f"{v:g}" for v in values) for values in (start.mean, start.std))
        sentences.append(f"It was fed pixels of mean {mean} and standard deviation {std}.")
    licence = recipe.publish.licence
    if licence is not None and restricts(start.licence):
        sentences.append(
            f"That the weights of this run are under {licence} is the recipe's own statement."
        )
    return " ".join(sentences)


def _shown(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON types, without the way to local files, which may name somebody."""
    told = recipe.to_dict()
    if recipe.start is not None and Path(recipe.start).exists():
        told["start"] = Path(recipe.start).name
    for part in (told["watch"], *told["stages"]):
        place = part.get("data")
        if isinstance(place, dict) and place.get("path"):
            place["path"] = Path(place["path"]).name
        elif isinstance(place, str):
            part["data"] = Path(place).name
    if told["watch"]["tasks"] != "standing":
        told["watch"]["tasks"] = Path(told["watch"]["tasks"]).name
    return told


def _stages(recipe: Recipe, facts: Facts) -> str:
    """One row for each stage: what was done on what, and how it ended."""
    rows = []
    for i, stage in enumerate(recipe.stages):
        method = methods()[stage.method]
        ended = "; ".join(
            f"{_named(key)} {value:.4g}"
            for key, value in facts.figures[i].items()
            if key != "seconds"
        )
        batch = stage.train.batch * stage.train.accumulate * facts.processes
        rows.append(
            f"| {i + 1} | {method.title} ({method.paper}) | {len(facts.studies[i]):,} "
            f"| {stage.train.epochs} | {batch:,} | {ended} | `{facts.digests[i]}` |"
        )
    return "\n".join(rows)


def _named(figure: str) -> str:
    for prefix, how in (("knn_", "nearest neighbours"), ("probe_", "linear probe")):
        if figure.startswith(prefix):
            return f"AUROC on the development part ({how}, {figure.removeprefix(prefix)})"
    return _FIGURES.get(figure, figure)


# As the methods' own docstrings define them.
_FIGURES = {
    "accuracy": "share of right answers",
    "agreement": "radiographs whose two views have the same nearest prototype",
    "contrast": "contrastive part of the loss",
    "correlation": "mean correlation of a feature with itself in the other view",
    "covariance": "covariance part of the loss",
    "effective_rank": "effective rank of one batch's features",
    "feature_std": "spread of unit-length features (1 fills the sphere, 0 is collapse)",
    "hidden": "part of the pixels that was hidden",
    "images_per_second": "radiographs per second",
    "invariance": "invariance part of the loss",
    "l1": "mean absolute error",
    "psnr": "PSNR in dB",
    "reconstruction": "reconstruction part of the loss",
    "teacher_entropy": "entropy of the teacher's answers",
    "variance": "variance part of the loss",
    "wins": "queries whose positive beats every negative",
}

_PURPOSE = "an image encoder for chest radiographs"

_LIMITS = """\
The encoder has seen few hospitals, scanners and age groups; whatever tells the data sets apart
(borders, burned-in letters, picture size) may be part of its features."""

_LIMITS_OF_COLOUR = """\
The pictures of this run are in colour: what a radiograph needs may not be among its features."""

_LOAD_FOLDER = """\
import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True)"""

_LOAD_HUB = """\
import timm

model = timm.create_model("hf-hub:{repo}", pretrained=True)"""

_TEXT = """\
# {title}

`{name}` is {purpose}, pretrained by {method} on {images}
without their labels. **It is a research tool and not for clinical use.**

## Load it

```python
{load}
```

This gives the encoder without a head. `cxr_foundation.load("FOLDER")` gives the same one, and
`cxr_foundation.processor("FOLDER")` turns DICOM files, pictures and arrays into what it was fed;
plain timm and transformers read 8-bit pictures only and approximate the rest.

## What it was fed

{channels}, {size} pixels, normalised with mean {mean} and standard deviation {std} of
pixels in [0, 1]. The front matter states the whole input contract.

## Data

{images} ({by_source}) of the part {split}:

{data}

## Training

Started from {start}

The recipe `{recipe}` is below in full. The loop took {hours} on {hardware}
(a resumed run counts from its last start). The weights are stored in {precision} precision.

| Stage | Method | {pictures} | Epochs | Batch | At its end | SHA-256 over the files' digests |
|---|---|---|---|---|---|---|
{stages}

Versions: {versions}.

<details><summary>Recipe</summary>

```yaml
{yaml}
```

</details>
{notes}
## Limits

{limits} Measure it on your own data
against simple baselines before you rely on it. It makes no diagnosis.
"""
