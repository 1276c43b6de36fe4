"""The command `cxr`: one thin command per verb. Parse, call one function, print."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cxr_foundation import cli_data, cli_train

# Not from the package itself: `cxr doctor` has to run where another one has overwritten it.
from cxr_foundation._version import __version__
from cxr_foundation.cli_data import AsJson, Trust
from cxr_foundation.cli_data import print_json as _print_json
from cxr_foundation.errors import CxrError

app = typer.Typer(
    name="cxr",
    help="Pretrained chest X-ray encoders: find, load, convert, pretrain, publish, transfer.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Precision(StrEnum):
    """Type of a folder's weights; "keep" leaves that of the file."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"
    keep = "keep"


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("cxr-demo"),
) -> None:
    """Load, embed and compare on bundled radiographs, without a network.

    Example: cxr demo --out cxr-demo
    """
    from cxr_foundation.demo import run

    typer.echo(run(out, progress=True).table())


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Name or wildcard.")] = "*",
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Only weights that can be fetched.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the catalogue.

    Example: cxr list "*vit*"
    """
    from cxr_foundation.catalog import describe, list_models, table

    found = list_models(pattern, pretrained=pretrained)
    if as_json:
        _print_json([describe(c) for c in found])
        return
    typer.echo("\n".join(table(found)))
    typer.echo(
        "* is what the bare architecture name loads. `cxr show NAME` prints a card.", err=True
    )


@app.command()
def show(name: Annotated[str, typer.Argument(help="Model name.")], as_json: AsJson = False) -> None:
    """Print one card: facts, licences, input contract, citation.

    Example: cxr show cxr_resnet50.chess
    """
    from cxr_foundation.catalog import body_of, checkpoint, describe, summary

    record = checkpoint(name)
    if as_json:
        _print_json(describe(record))
        return
    typer.echo(summary(record))
    if record.path is not None:
        typer.echo(body_of(record.path))


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A checkpoint of any kind.")], as_json: AsJson = False
) -> None:
    """Say what a checkpoint is and whether it would load. Nothing of it is run.

    Example: cxr inspect CheSS.pth.tar
    """
    from cxr_foundation.convert import inspect as inspect_file

    report = inspect_file(file)
    if as_json:
        _print_json(report.to_dict())
    else:
        typer.echo("\n".join(report.lines()))


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A checkpoint of a known layout.")],
    out_dir: Annotated[Path, typer.Argument(help="Folder to write; must not exist.")],
    name: Annotated[
        str | None, typer.Option(help="Catalogue entry that the file belongs to.")
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="cxr_* or timm name, if the shapes do not tell.")
    ] = None,
    takes: Annotated[
        str | None, typer.Option(help="Which encoder of several, e.g. encoder_k or teacher.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Layout of the file, if its keys do not tell.")
    ] = None,
    dtype: Annotated[Precision, typer.Option(help="Type of the weights.")] = Precision.float32,
    as_json: AsJson = False,
) -> None:
    """Turn a checkpoint into a published folder that timm and AutoModel load.

    Example: cxr convert CheSS.pth.tar chess/ --name cxr_resnet50.chess
    """
    from cxr_foundation.models.loading import convert_to_folder

    report = convert_to_folder(
        file,
        out_dir,
        name=name,
        architecture=architecture,
        layout=layout,
        takes=takes,
        dtype=None if dtype is Precision.keep else dtype.value,
    )
    if as_json:
        _print_json(report.to_dict())
    else:
        typer.echo("\n".join([*report.lines(), f"wrote {out_dir}"]))


@app.command()
def verify(
    target: Annotated[str, typer.Argument(help="Model name or published folder.")],
    as_json: AsJson = False,
) -> None:
    """Check weights against their card: sha256 and the golden embedding.

    Leaves with 0 on a pass, 1 on a difference, 3 if the card holds nothing to check against.

    Example: cxr verify cxr_resnet18.moco_open
    """
    from cxr_foundation.models.verify import verify as check

    verdict = check(target)
    if as_json:
        _print_json(verdict.to_dict())
    else:
        typer.echo("\n".join(verdict.lines()))
    raise typer.Exit({"pass": 0, "fail": 1, "unverified": 3}[verdict.status])


@app.command()
def check(
    data: Annotated[Path, typer.Argument(help="A radiograph, or a folder of them.")],
    out: Annotated[
        Path | None, typer.Option(help="Report folder; must not exist. cxr-check for a folder.")
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Write upright, bone-bright copies into the report.")
    ] = False,
    trust: Annotated[
        Trust | None,
        typer.Option(help="Which of two elements to believe that contradict about polarity."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a site's own radiographs are like, without any weights.

    Syntax, polarity, view, intent, spacing, letters in the pixels, duplicates; what is turned,
    inverted, cropped or not frontal. Leaves with 3 if some files could not be read.

    Example: cxr check export/ --out cxr-check
    """
    from cxr_foundation.data.site import check_file, survey

    believed: Any = None if trust is None else trust.value
    if data.is_file() and out is None and not fix:
        checked = check_file(data, trust=believed)
        if as_json:
            _print_json(checked.to_dict())
        else:
            typer.echo("\n".join(checked.lines()))
        raise typer.Exit(int(bool(checked.refused)))
    found = survey(data, out or Path("cxr-check"), fix=fix, trust=believed, progress=True)
    if as_json:
        _print_json(found.summary)
    else:
        typer.echo("\n".join(found.lines()))
    raise typer.Exit(3 if found.refused else 0)


for _verb in (cli_data.shard, cli_data.embed, cli_data.audit):
    app.command()(_verb)


@app.command()
def doctor(
    name: Annotated[
        str | None, typer.Argument(help="Model name; left out, the installation is looked at.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether this installation is sound, or whether a model can be had, and how.

    Downloads nothing. Leaves with 1 if a check failed.

    Example: cxr doctor cxr_resnet50.chess
    """
    from cxr_foundation.models.doctor import doctor as examine

    verdict = examine(name)
    if as_json:
        _print_json(verdict.to_dict())
    else:
        typer.echo("\n".join(verdict.lines()))
    raise typer.Exit(int(verdict.failed))


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A published folder.")],
    repo_id: Annotated[str, typer.Argument(help="org/name on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repo private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; the main one if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Publish a folder in one commit. HF_ENDPOINT and HF_TOKEN are huggingface_hub's.

    Example: cxr push my-encoder/ org/my-encoder
    """
    from cxr_foundation.hub import push as push_folder

    result = push_folder(folder, repo_id, private=private, revision=revision)
    if as_json:
        _print_json({"url": result.url, "commit": result.commit})
    else:
        typer.echo(f"{result.url} at {result.commit}")


app.command()(cli_train.pretrain)
app.command()(cli_train.experiment)
app.add_typer(cli_train.transfer, name="transfer")


def main() -> None:
    """Entry point. Errors of the package are one or two lines and exit code 1."""
    try:
        app()
    except CxrError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
