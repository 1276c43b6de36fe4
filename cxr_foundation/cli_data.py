"""Commands over whole data sets: `cxr shard`, `embed`, `audit`. Parse, call, print."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cxr_foundation.data.looking import Flagged

__all__ = ["AsJson", "Trust", "audit", "embed", "print_json", "shard"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


def print_json(value: Any) -> None:
    """Print what a program reads."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


class Trust(StrEnum):
    """Which of two elements of a DICOM file is believed about polarity."""

    photometric = "photometric"
    shape = "shape"


class Computed(StrEnum):
    """Type that features are computed in."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Runs(StrEnum):
    """What runs a long computation."""

    local = "local"
    ray = "ray"


Believed = Annotated[
    Trust | None,
    typer.Option(
        help="Which of two elements of a DICOM to believe that contradict about polarity; "
        "such files are refused without it."
    ),
]
Guarded = Annotated[
    bool,
    typer.Option(
        "--guard/--no-guard",
        help="Look for radiographs that are inverted, turned, cropped or not frontal, and for "
        "letters in the pixels. Warns; changes nothing.",
    ),
]


def shard(
    data: Annotated[Path, typer.Argument(help="Folder of radiographs, or an index.csv.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; one that was cut off goes on.")],
    size: Annotated[int, typer.Option(min=16, help="Pixels a side.")] = 512,
    bits: Annotated[int, typer.Option(help="8 or 16 per pixel.")] = 8,
    model: Annotated[
        str | None, typer.Option(help="Prepare as this model's input contract says.")
    ] = None,
    trust: Believed = None,
    guard: Guarded = True,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Bring radiographs to one size once, as tar shards that webdataset opens.

    Leaves with 3 if some radiographs could not be used; OUT.refused.jsonl lists them. Those that a
    guard noticed something about are used like all others, and OUT.flagged.jsonl lists them.

    Example: cxr shard radiographs/ shards/ --size 512 --bits 16
    """
    from cxr_foundation.data import open_data
    from cxr_foundation.data.sample import Settings
    from cxr_foundation.data.sharding import shard as write_shards

    believed: Any = None if trust is None else trust.value
    settings = Settings(size=size, bits=bits, trust=believed)
    if model is not None:
        from cxr_foundation.models.loading import contract_of

        settings = Settings.of(contract_of(model), size=size, bits=bits, trust=believed)
    made = write_shards(
        open_data(data), out, settings=settings, guarded=guard, workers=workers, progress=True
    )
    _warn(made.flagged, f"{out}.flagged.jsonl")
    _leave(made.to_dict(), f"wrote {made.samples:,} radiographs to {out}", as_json=as_json)


def embed(
    data: Annotated[Path, typer.Argument(help="Folder of radiographs or shards, or an index.csv.")],
    model: Annotated[str, typer.Option(help="Model name or published folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Parquet file to write.")],
    precision: Annotated[Computed, typer.Option(help="Of the computation.")] = Computed.float32,
    batch: Annotated[int, typer.Option(min=1, help="Radiographs per pass.")] = 32,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that read files; with Ray, actors.")
    ] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …; the best if left out.")] = None,
    engine: Annotated[Runs, typer.Option(help="Where it is computed.")] = Runs.local,
    trust: Believed = None,
    guard: Guarded = True,
    as_json: AsJson = False,
) -> None:
    """Write the features of radiographs into a parquet file. Goes on where it was cut off.

    Leaves with 3 if some radiographs could not be used; OUTPUT.refused.jsonl lists them. Those that
    a guard noticed something about are used like all others, and OUTPUT.flagged.jsonl lists them.

    Example: cxr embed radiographs/ --model cxr_resnet18.moco_open -o features.parquet
    """
    from cxr_foundation.data import open_data
    from cxr_foundation.models.table import embed_table

    made = embed_table(
        open_data(data),
        model=model,
        output=output,
        root=data if data.is_dir() else data.parent,
        precision=precision.value,
        trust=None if trust is None else trust.value,
        guarded=guard,
        batch_size=batch,
        workers=workers,
        device=device,
        engine=engine.value,
        progress=True,
    )
    _warn(made.flagged, f"{output}.flagged.jsonl")
    _leave(made.to_dict(), f"wrote {made.rows:,} rows to {output}", as_json=as_json)


def audit(
    data: Annotated[list[Path], typer.Argument(help="Data sets: folders or index files.")],
    against: Annotated[
        list[str] | None, typer.Option(help="Model name or published folder; may be repeated.")
    ] = None,
    shortcuts: Annotated[
        bool, typer.Option(help="Score labels by metadata and by the picture's frame alone.")
    ] = True,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read files.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look for patients and pictures on two sides of a split, and for other ways to score too well.

    Altered copies are found too. Leaves with 1 if something leaks; with 3 if pictures could not be
    read, or if it is unknown what a model has seen.

    Example: cxr audit data/ hospital/ --against cxr_resnet50.chess
    """
    from cxr_foundation.evaluate.audit import audit as look

    found = look(
        data, against=against or (), score_shortcuts=shortcuts, workers=workers, progress=True
    )
    if as_json:
        print_json(found.to_dict())
    else:
        typer.echo("\n".join(found.lines()))
    raise typer.Exit({"clean": 0, "leaks": 1, "incomplete": 3, "unknown": 3}[found.status])


def _warn(flagged: tuple[Flagged, ...], listed: str) -> None:
    """Say on stderr how many radiographs a guard noticed something about, kind by kind."""
    if not flagged:
        return
    from cxr_foundation.data.looking import counted

    kinds = ", ".join(f"{count:,} {kind}" for kind, count in counted(flagged).items())
    typer.echo(
        f"warning: radiographs to look at: {len(flagged):,} ({kinds}); see {listed}", err=True
    )


def _leave(report: dict[str, Any], line: str, *, as_json: bool) -> None:
    """Print what came of it; exit code 3 says that not all radiographs could be used."""
    refused = report["refused"]
    if as_json:
        print_json(report)
    else:
        typer.echo(line + (f"; {len(refused):,} could not be used" if refused else ""))
    raise typer.Exit(3 if refused else 0)
