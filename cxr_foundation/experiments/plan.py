"""What an experiment compares: arms, each an encoder that was made in another way."""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cxr_foundation.errors import RecipeError, UnknownName
from cxr_foundation.evaluate.protocol import Count
from cxr_foundation.registry import closest

__all__ = ["Arm", "Experiment", "experiments", "read_experiment"]

_PREFIX = "experiment_"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to make an encoder.

    Attributes:
        name: Short, for folders and rows.
        title: For the reader.
        recipe: Pretraining recipe.
        set: Keys of the recipe with dots → values.
        trained: Whether the recipe is run; otherwise the encoder is what it would start from.
        file: Name of a file that this arm starts from and that the user brings; without it the arm
            is reported as not testable.
    """

    name: str
    title: str
    recipe: str
    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    trained: bool = True
    file: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Arms on one protocol.

    Attributes:
        name: Of the experiment.
        title: One line.
        question: What it asks, and which paper asked it.
        arms: In the order of the table.
        against: Arm that the others are compared with.
        mode: "probe" or "knn".
        features: As `FeatureKind.parse` takes them.
        counts: Labelled patients per class.
        draws: Draws of labelled patients.
        seeds: Each arm is made once with each.
        tasks: Names of standing tasks; none takes all. An arm that learnt from a source's labels
            may not be scored on that source.
    """

    name: str
    title: str
    question: str
    arms: tuple[Arm, ...]
    against: str
    mode: str = "probe"
    features: str = "pooled"
    counts: tuple[Count, ...] = (5, 10, 20, 50, "all")
    draws: int = 20
    seeds: tuple[int, ...] = (0, 1, 2)
    tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError("arms: two have one name")
        if self.against not in names:
            raise ValueError(f"against: {self.against!r} is no arm")


def experiments() -> list[str]:
    """Names of the experiments that ship, sorted."""
    folder = importlib.resources.files("cxr_foundation.recipes")
    names = (f.name for f in folder.iterdir())
    return sorted(
        n.removeprefix(_PREFIX).removesuffix(".yaml") for n in names if n.startswith(_PREFIX)
    )


def read_experiment(name: str | Path) -> Experiment:
    """An experiment by its name, or from a YAML file.

    Raises:
        UnknownName: None of this name ships.
        RecipeError: An unreadable file, an unknown or missing key, or a wrong value.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if str(name) not in experiments():
            hint = closest(str(name), experiments()) or f"Known: {', '.join(experiments())}."
            raise UnknownName(str(name), "no experiment of this name", f"{hint} Or name a file.")
        shipped = importlib.resources.files("cxr_foundation.recipes") / f"{_PREFIX}{name}.yaml"
        text = shipped.read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(path, f"cannot be read ({type(error).__name__})") from None
    try:
        raw = yaml.safe_load(text)
        arms = tuple(Arm(**arm) for arm in raw.pop("arms"))
        for key in ("counts", "seeds", "tasks"):
            if key in raw:
                raw[key] = tuple(raw[key])
        return Experiment(arms=arms, **raw)
    except yaml.YAMLError as error:
        raise RecipeError(str(name), f"not YAML: {str(error).splitlines()[0]}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecipeError(str(name), f"is no experiment ({error})") from None
