"""What a pretraining run is told, as frozen records."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Literal

from cxr_foundation.contract import InputContract
from cxr_foundation.pretrain.method import methods
from cxr_foundation.pretrain.views import ViewConfig

__all__ = [
    "DataRecipe",
    "EncoderRecipe",
    "PublishRecipe",
    "Recipe",
    "Stage",
    "StartFacts",
    "TrainRecipe",
    "WatchRecipe",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderRecipe:
    """The network that is pretrained.

    Attributes:
        architecture: A `cxr_*` name, or any network of timm's by its stock name.
        in_chans: 1, or 3 for grey replicated or colour.
        drop_path: Highest rate of stochastic depth while training.
    """

    architecture: str
    in_chans: int = 1
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if self.in_chans not in (1, 3):
            raise ValueError(f"in_chans: {self.in_chans!r} is neither 1 nor 3")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path: {self.drop_path!r} is not within [0, 1)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Which radiographs, and how they are held.

    Attributes:
        split: Part of the data set's split; all of it where the data set has no split.
        only_may_ship: Leave out every picture whose terms do not allow redistribution.
        sources: Short names of the data sets that are used; None means all.
        size: (height, width) in pixels to which a picture is brought once, before its views.
        bits: 8 or 16 per pixel of that copy.
        in_memory: Keep all copies in memory; otherwise each is made again for every epoch.
        path: Where this stage's radiographs are; None means what the run is given.
        colour: Read colour pictures as they are, in three channels.
        bad: What a picture that cannot be read is: an "error", or one to "skip": the next one
            stands in for it, and more than one in a thousand are an error.
    """

    split: str = "pretrain"
    only_may_ship: bool = False
    sources: tuple[str, ...] | None = None
    size: tuple[int, int]
    bits: int = 8
    in_memory: bool = True
    path: str | None = None
    colour: bool = False
    bad: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        if self.colour and self.bits != 8:
            raise ValueError("colour: with bits 8 only")
        if self.bits not in (8, 16):
            raise ValueError(f"bits: {self.bits!r} is neither 8 nor 16")
        if not all(16 <= s <= 4096 for s in self.size):
            raise ValueError(f"size: {self.size!r} is not two whole numbers from 16 to 4096")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """Optimiser, schedule and loop.

    Attributes:
        epochs: Passes over the data.
        batch: Radiographs per step and process; an incomplete last batch is left out.
        accumulate: Batches whose gradients are added up before the optimiser steps.
        optimiser: "sgd", "adamw", or "lars" (You et al. 2017, arXiv 1708.03888).
        lr: Learning rate at its highest.
        lr_for_batch: Radiographs per optimiser step, over all processes, that `lr` is meant for:
            another number scales it linearly. None takes it as it is.
        min_lr: Where the cosine ends.
        sgd_momentum: Of "sgd" and "lars".
        betas: Of "adamw".
        weight_decay: At the start.
        weight_decay_end: At the end, by half a cosine; None keeps it constant.
        decayed: "all" parameters, or "matrices": neither biases nor norms.
        clip: Largest norm of the gradient; None leaves it alone.
        clip_by: Whether `clip` bounds the norm of all gradients or of each "parameter" alone.
        schedule: "cosine", or "constant"; changes at every step.
        warmup_epochs: Epochs over which the rate rises linearly from zero.
        seed: Of weights, order and views.
        precision: "fp32", or "bf16" autocast.
        checkpoint_gradients: Compute activations again instead of keeping them, where the encoder
            can.
        compile: Compile the method with torch.compile.
        workers: Processes that make views; 0 makes them between the steps.
        checkpoint_epochs: Epochs between checkpoints.
        log_steps: Steps between log lines.
    """

    epochs: int
    batch: int
    accumulate: int = 1
    optimiser: Literal["sgd", "adamw", "lars"] = "sgd"
    lr: float
    lr_for_batch: int | None = None
    min_lr: float = 0.0
    sgd_momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    weight_decay_end: float | None = None
    decayed: Literal["all", "matrices"] = "all"
    clip: float | None = None
    clip_by: Literal["norm", "parameter"] = "norm"
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = 0.0
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_gradients: bool = False
    compile: bool = False
    workers: int = 0
    checkpoint_epochs: float = 1.0
    log_steps: int = 10

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulate", "log_steps", "lr", "checkpoint_epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")
        for name in ("lr_for_batch", "clip"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name}: {value!r} is not above 0")
        for name in ("seed", "workers", "weight_decay", "warmup_epochs", "min_lr"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} is below 0")
        if self.batch < 2:
            raise ValueError(f"batch: {self.batch!r} is not above 1")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr: {self.min_lr!r} is above lr")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchRecipe:
    """How a run is watched while it goes on; nothing here changes the weights.

    Attributes:
        epochs: Epochs between looks at a labelled part of the data; None never looks.
        data: Where the labelled radiographs are; None means where the first stage's are.
        tasks: "standing", or a YAML file of tasks. A task whose labels the data lack is left out.
        mode: "knn" or "probe".
        labels: Labelled patients per class, drawn from `train`.
        draws: Draws of labelled patients.
        train: Part of the split whose labels are drawn.
        score: Part that is scored; "test" is refused.
        images: Most radiographs of it that are scored per task, half of them of each class.
        min_feature_std: A run whose features spread less than this is stopped as collapsed.
        min_rank: Likewise for the effective rank of one batch's features.
        patience: Log lines in a row below one of these limits before it is stopped; those of the
            warm-up are not counted.
    """

    epochs: float | None = None
    data: str | None = None
    tasks: str = "standing"
    mode: Literal["knn", "probe"] = "knn"
    labels: int = 20
    draws: int = 5
    train: str = "pretrain"
    score: str = "dev"
    images: int = 1000
    min_feature_std: float = 0.02
    min_rank: float = 1.5
    patience: int = 5

    def __post_init__(self) -> None:
        for name in ("epochs", "labels", "draws", "images", "patience"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name}: {value!r} is not above 0")
        if self.score == "test":
            raise ValueError("score: 'test' is read once, when a result is released")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishRecipe:
    """What the encoder is called and what its card says beyond what the run knows itself.

    Attributes:
        tag: The part of the name after the dot.
        title: One line for people.
        precision: Of the published file.
        licence: The card's `license`, a Hub identifier; None means unknown, and is not pushed.
        data: Names of the data sets with their terms.
        data_licence: Terms of the data as a whole.
        overlaps: Public test sets whose pictures the encoder may have seen.
        labels_used_for_selection: Whether labels chose the recipe; None means not stated.
        citation: BibTeX or one line; None if there is none.
        notes: Paragraphs for the card's text.
    """

    tag: str
    title: str
    precision: Literal["fp16", "fp32"] = "fp16"
    licence: str | None = None
    data: tuple[str, ...] = ()
    data_licence: str | None = None
    overlaps: tuple[str, ...] = ()
    labels_used_for_selection: bool | None = None
    citation: str | None = None
    notes: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]+", self.tag):
            raise ValueError(f"tag: {self.tag!r} is not lower-case letters, digits and _")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One method's turn; it starts from the encoder of the stage before.

    Attributes:
        method: Name of the method.
        settings: The method's own, an instance of its `Settings`.
        data: The radiographs.
        views: How views are drawn.
        second_view: How the second full view is drawn; None draws it as the first.
        local_views: How the smaller views are drawn; None means none.
        local_count: How many of them.
        train: Optimiser, schedule and loop.
    """

    method: str
    settings: Any
    data: DataRecipe
    views: ViewConfig
    second_view: ViewConfig | None = None
    local_views: ViewConfig | None = None
    local_count: int = 0
    train: TrainRecipe

    def __post_init__(self) -> None:
        chosen = methods()[self.method]
        if bool(self.local_count) != (self.local_views is not None):
            raise ValueError("local_count: goes with local_views")
        if self.local_count and not chosen.local_views:
            raise ValueError(f"local_views: {chosen.title} takes none")
        if self.second_view is not None and chosen.full_views < 2:
            raise ValueError(f"second_view: {chosen.title} takes one view")
        if check := getattr(self.settings, "check", None):
            try:
                check(self.train.batch)
            except ValueError as error:
                raise ValueError(f"method.{error}") from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartFacts:
    """What a recipe states of a start that does not say it itself.

    Attributes:
        mean: Per channel, of pixels in [0, 1], that it was fed; one number is for every channel.
        std: Likewise.
        licence: Of its weights, a Hub identifier.
        method: How it was trained: "supervised".
        data: What it was trained on.
        overlaps: Public test sets whose pictures it may have seen; an empty list says that there
            are none.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    licence: str | None = None
    method: str | None = None
    data: tuple[str, ...] | None = None
    overlaps: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean: goes with std")
        if self.std is not None and not all(s > 0 for s in self.std):
            raise ValueError(f"std: {self.std!r} is not above 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One pretraining run, complete.

    Attributes:
        name: Of the run, for folders and messages.
        encoder: The network.
        start: None for random weights, else "timm:NAME", a model name of the catalogue, a
            published folder or a checkpoint file (`pretrain.starts`).
        start_facts: What the recipe states of a start that does not say it itself.
        contract: What the published encoder is fed; its mean and std are the views' too.
        watch: What is looked at while it runs.
        publish: Name, card and file.
        stages: What is trained, in order; a curriculum has several.
    """

    name: str
    encoder: EncoderRecipe
    start: str | None = None
    start_facts: StartFacts | None = None
    contract: InputContract
    watch: WatchRecipe = WatchRecipe()
    publish: PublishRecipe
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.contract.complete:
            raise ValueError("contract: mean, std or intensity is not set")
        if self.contract.channels != self.encoder.in_chans:
            raise ValueError("contract: channels and encoder.in_chans differ")
        if not self.stages:
            raise ValueError("stages: there is none")
        if self.start_facts is not None and self.start is None:
            raise ValueError("start_facts: there is no start")
        if self.encoder.in_chans != 3 and any(stage.data.colour for stage in self.stages):
            raise ValueError("encoder.in_chans: colour pictures need 3")

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON types; `read_recipe` of its YAML gives an equal recipe."""
        listed = _listed(dataclasses.asdict(self))
        assert isinstance(listed, dict)
        for stage in listed["stages"]:
            stage["method"] = {"name": stage["method"], **stage.pop("settings")}
        return listed


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _listed(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_listed(v) for v in value]
    return value
