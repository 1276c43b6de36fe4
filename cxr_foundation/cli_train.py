"""Commands that train: `cxr pretrain`, `experiment`, `transfer`. Parse, call, print."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cxr_foundation.cli_data import AsJson, print_json

__all__ = ["experiment", "pretrain", "transfer"]


class Mode(StrEnum):
    """How frozen features are scored."""

    knn = "knn"
    probe = "probe"


class Side(StrEnum):
    """The part of the split that is scored."""

    dev = "dev"
    test = "test"


def pretrain(
    recipe: Annotated[str, typer.Argument(help="Recipe that ships, or a YAML file.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of radiographs, or one with index.csv.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Run folder; one that was cut off is resumed.")
    ] = None,
    push_to: Annotated[str | None, typer.Option(help="org/name on the Hub.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key, e.g. train.epochs=2.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it costs in memory and time.")
    ] = False,
    images: Annotated[
        int | None, typer.Option(min=1, help="Radiographs that --dry-run reckons with.")
    ] = None,
    order_by_probe: Annotated[
        bool,
        typer.Option(
            "--order-by-probe",
            help="Try each stage of a curriculum alone, score it with the labels of the dev part, "
            "and train the stages in the order of their scores, lowest first.",
        ),
    ] = False,
    order_epochs: Annotated[
        int, typer.Option(min=1, help="Epochs that --order-by-probe tries each stage for.")
    ] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print --dry-run as JSON.")] = False,
) -> None:
    """Pretrain an encoder; ends in a published folder, and report.html beside it.

    Example: cxr pretrain moco_open_small --data radiographs/ --output runs/moco

    Example: cxr pretrain chess --dry-run --images 4800000
    """
    from cxr_foundation.pretrain import estimate, run
    from cxr_foundation.pretrain.recipe_file import parse_overrides

    if not dry_run and (images is not None or as_json):
        raise typer.BadParameter("goes with --dry-run", param_hint="--images, --json")
    overrides = parse_overrides(set_ or [])
    if dry_run:
        found = estimate(recipe, data=data, images=images, overrides=overrides)
        if as_json:
            print_json(found.to_dict())
        else:
            typer.echo("\n".join(found.lines()))
        return
    folder = run(
        recipe,
        data=data,
        output=output,
        push_to=push_to,
        overrides=overrides,
        order_epochs=order_epochs if order_by_probe else None,
    )
    typer.echo(f"wrote {folder}")


def experiment(
    name: Annotated[str, typer.Argument(help="Experiment that ships, or a YAML file.")],
    data: Annotated[Path, typer.Option(help="Labelled radiographs with a split.")],
    output: Annotated[Path, typer.Option(help="Run folder; one that was cut off is resumed.")],
    file: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH of a file that an arm starts from.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of every arm's recipe.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds of every arm, comma-separated.")] = None,
    split: Annotated[Side, typer.Option(help="Part that is scored; test is read once.")] = Side.dev,
) -> None:
    """Make encoders in several ways and compare them by one protocol.

    Example: cxr experiment starts --data radiographs/ --output runs/starts
    """
    from cxr_foundation.experiments import run
    from cxr_foundation.pretrain.recipe_file import parse_overrides

    if seeds is not None and not all(part.strip().isdigit() for part in seeds.split(",")):
        raise typer.BadParameter("whole numbers, for example 0,1,2", param_hint="--seeds")
    folder = run(
        name,
        data=data,
        output=output,
        files={key: str(path) for key, path in parse_overrides(file or []).items()},
        overrides=parse_overrides(set_ or []),
        seeds=[int(part) for part in seeds.split(",")] if seeds else None,
        split_test=split.value,
        command=shlex.join(["cxr", *sys.argv[1:]]),
    )
    typer.echo(f"wrote {folder / 'report.html'}")


transfer = typer.Typer(
    help="Use an encoder for a downstream task.", no_args_is_help=True, rich_markup_mode=None
)


@transfer.command()
def classify(
    data: Annotated[Path, typer.Argument(help="Folder with index.csv and splits.csv.")],
    model: Annotated[str, typer.Option(help="Model name or published folder.")],
    mode: Annotated[Mode, typer.Option(help="How frozen features are scored.")] = Mode.probe,
    features: Annotated[
        str, typer.Option(help="pooled, or grid:G[:LEVEL]: a map of G x G places.")
    ] = "pooled",
    tasks: Annotated[str, typer.Option(help="Task list that ships, or a YAML file.")] = "standing",
    positive: Annotated[str | None, typer.Option(help="Label of the positive class.")] = None,
    negative: Annotated[str | None, typer.Option(help="Label of the negative class.")] = None,
    source: Annotated[str | None, typer.Option(help="Only rows of this source.")] = None,
    split: Annotated[Side, typer.Option(help="Part that is scored; test is read once.")] = Side.dev,
    train_split: Annotated[str, typer.Option(help="Part whose labels are drawn.")] = "pretrain",
    counts: Annotated[
        str, typer.Option(help="Labelled patients per class, comma-separated; all comes last.")
    ] = "5,10,20,50,all",
    draws: Annotated[int, typer.Option(min=1, help="Label draws per count.")] = 20,
    output: Annotated[Path, typer.Option(help="Report folder; must not exist.")] = Path(
        "runs/classify"
    ),
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Go on although the split leaks; it is reported.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score frozen features at several label counts, beside untrained and shortcuts.

    Example: cxr transfer classify data/ --model cxr_resnet18.moco_open --mode probe
    """
    from cxr_foundation.evaluate.protocol import parse_counts, single_task
    from cxr_foundation.transfer.classify import run

    chosen = single_task(positive, negative, source) if positive or negative else tasks
    report = run(
        data,
        model=model,
        mode=mode.value,
        features=features,
        tasks=chosen,
        counts=parse_counts(counts),
        split_train=train_split,
        split_test=split.value,
        draws=draws,
        output=output,
        allow_leaks=allow_leaks,
        progress=True,
    )
    if as_json:
        typer.echo((report / "results.json").read_text())
    else:
        typer.echo(f"wrote {report / 'report.html'}")
