"""`embed_table`: the features of a whole data set as one parquet file, resumable."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm import tqdm

from cxr_foundation.data.looking import Flagged
from cxr_foundation.data.opening import fingerprint
from cxr_foundation.data.study import Study
from cxr_foundation.errors import MissingExtra, NoImages, OutputExists, OutputFailed
from cxr_foundation.files import atomic_write
from cxr_foundation.images import Trust
from cxr_foundation.models.encoding import Precision
from cxr_foundation.models.parts import Part, PartMaker, Refused

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Embedded", "Engine", "embed_table"]

Engine = Literal["local", "ray"]
_PLAN = "plan.json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Embedded:
    """What came of it.

    Attributes:
        output: The parquet file: columns `path` and `embedding`.
        rows: Radiographs in it.
        refused: (path, kind of error, reason) of each that could not be used.
        flagged: Those that are in it and that a guard noticed something about.
    """

    output: Path
    rows: int
    refused: tuple[Refused, ...]
    flagged: tuple[Flagged, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "output": str(self.output),
            "rows": self.rows,
            "refused": [{"path": p, "kind": k, "reason": r} for p, k, r in self.refused],
            "flagged": [f.to_dict() for f in self.flagged],
        }


def embed_table(
    studies: Sequence[Study],
    *,
    model: str | Path,
    output: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    precision: Precision = "float32",
    trust: Trust | None = None,
    guarded: bool = True,
    batch_size: int = 32,
    rows_per_part: int = 1024,
    workers: int = 0,
    device: str | None = None,
    engine: Engine = "local",
    progress: bool = False,
) -> Embedded:
    """Write the pooled features of radiographs into a parquet file.

    A run that was cut off goes on when it is started again: finished parts lie in `<output>.parts`
    until all are there. On a CPU the file is the same as without the cut. Radiographs that cannot
    be used are left out, and listed in `<output>.refused.jsonl`.

    `images.guard` looks at each radiograph on the way: whether it is inverted, turned, cropped or
    not frontal, and whether text is burned into its pixels. It changes no pixel and refuses none;
    what it noticed is in `Embedded.flagged` and in `<output>.flagged.jsonl`.

    Args:
        studies: Files, or samples of shards.
        model: Name in the catalogue, or a published folder.
        output: File to write. Its column `path` has the names relative to `root`.
        root: Folder of the data set.
        precision: See `Encoding`.
        trust: What to believe of DICOM files that contradict themselves about polarity, see
            `images.read_image`; None refuses them.
        guarded: Whether the guard looks; the features are the same either way.
        batch_size: Radiographs per pass.
        rows_per_part: Radiographs between two points from which a run can go on.
        workers: Processes that read files; with Ray, actors that read and compute.
        device: None takes a GPU if there is one.
        engine: "ray" runs the same parts on the Ray cluster that RAY_ADDRESS names, or else on
            a local one; its machines have to see the files and the model under the same names.
        progress: Show a bar.

    Raises:
        NoImages: There is no radiograph, or none can be used.
        OutputExists: `output` is there, or was begun with other data or another model.
        OutputFailed: The disk is full or not writable, or a worker died.
        MissingExtra: pyarrow or ray is not installed.
        CxrError: The model cannot be loaded; shards that were made by another contract.
    """
    _require("pyarrow", "data")
    if engine == "ray":
        _require("ray", "scale")
    output, parts = Path(output), Path(f"{os.fspath(output)}.parts")
    if not studies:
        raise NoImages("data", "holds no radiograph")
    if output.exists() and not parts.exists():
        raise OutputExists(output, "is there already")
    maker = PartMaker(
        studies, model=str(model), root=root, precision=precision, batch_size=batch_size,
        device=device, trust=trust, guarded=guarded,
    )  # fmt: skip
    plan = {**maker.plan(), "rows_per_part": rows_per_part, "data": fingerprint(studies)}
    plan["guarded"] = guarded
    _claim(parts, plan)
    spans = [
        range(i, min(i + rows_per_part, len(studies)))
        for i in range(0, len(studies), rows_per_part)
    ]
    left = [n for n in range(len(spans)) if not _file(parts, n).exists()]
    with tqdm(
        total=len(studies),
        initial=len(studies) - sum(len(spans[n]) for n in left),
        desc="Embedding",
        unit="image",
        disable=not progress,
    ) as bar:
        jobs = [(n, spans[n]) for n in left]
        for number, part in _made(maker, jobs, engine, workers):
            _write_part(parts, number, part)
            bar.update(len(spans[number]))
    return _finish(output, parts, len(spans), plan)


def _require(library: str, extra: str) -> None:
    if importlib.util.find_spec(library) is None:
        raise MissingExtra(
            library, "not installed", f'Run pip install "cxr-foundation-hub[{extra}]".'
        )
    # Now rather than at the first part: a broken installation shows before the work is done.
    importlib.import_module("pyarrow.parquet" if library == "pyarrow" else library)


def _made(
    maker: PartMaker, jobs: Sequence[tuple[int, range]], engine: Engine, workers: int
) -> Iterator[tuple[int, Part]]:
    if engine == "ray" and jobs:
        from cxr_foundation.models.ray_parts import parts_by_ray

        yield from parts_by_ray(maker, jobs, workers=max(1, workers))
        return
    try:
        yield from maker.parts(jobs, workers=workers)
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise OutputFailed(
            str(maker.arguments["model"]),
            "a process that reads files died",
            "Run it again: finished parts are kept; with --workers 0 it stops at the file.",
        ) from None


def _claim(parts: Path, plan: dict[str, Any]) -> None:
    file = parts / _PLAN
    if not file.exists():
        if parts.exists() and (not parts.is_dir() or any(parts.iterdir())):
            raise OutputExists(parts, "is there, and holds no parts of a table")
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(plan))
        return
    try:
        before = json.loads(file.read_bytes())
        changed = sorted(k for k, v in json.loads(json.dumps(plan)).items() if before.get(k) != v)
    except (ValueError, AttributeError):
        raise OutputExists(parts, f"its {_PLAN} is damaged") from None
    if changed:
        raise OutputExists(parts, f"was begun with other {', '.join(changed)}")


def _file(parts: Path, number: int) -> Path:
    return parts / f"part-{number:06d}.parquet"


def _write_part(parts: Path, number: int, part: Part) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    width = part.features.shape[1]
    values = arrow.array(part.features.reshape(-1).numpy(), arrow.float32())
    columns = {
        "path": arrow.array(part.paths, arrow.string()),
        "embedding": arrow.FixedSizeListArray.from_arrays(values, width),
    }
    with atomic_write(_file(parts, number).with_suffix(".json")) as temporary:
        said = {"refused": part.refused, "flagged": [f.to_dict() for f in part.flagged]}
        temporary.write_text(json.dumps(said))
    # Last: it says that the part is complete.
    with atomic_write(_file(parts, number)) as temporary:
        parquet.write_table(arrow.table(columns), temporary, compression="zstd")


def _finish(output: Path, parts: Path, count: int, plan: dict[str, Any]) -> Embedded:
    """All parts as one file, part by part; then they go."""
    from pyarrow import parquet

    refused: list[Refused] = []
    flagged: list[Flagged] = []
    rows = 0
    for number in range(count):
        said = json.loads(_file(parts, number).with_suffix(".json").read_bytes())
        refused += [(path, kind, reason) for path, kind, reason in said["refused"]]
        flagged += [Flagged.of(row) for row in said["flagged"]]
        rows += parquet.read_metadata(_file(parts, number)).num_rows
    if not rows:
        path, kind, reason = refused[0]
        shutil.rmtree(parts)
        raise NoImages(
            "data", "none of the radiographs can be used", f"The first: {path}: {kind}: {reason}."
        )
    embedded = Embedded(output=output, rows=rows, refused=tuple(refused), flagged=tuple(flagged))
    for what in ("refused", "flagged"):
        beside, listed = Path(f"{output}.{what}.jsonl"), embedded.to_dict()[what]
        if listed:
            with atomic_write(beside) as temporary:
                temporary.write_text("".join(f"{json.dumps(row)}\n" for row in listed))
        else:
            # Of an earlier table under this name.
            beside.unlink(missing_ok=True)
    if not output.exists():
        with atomic_write(output) as temporary:
            _join(temporary, [_file(parts, n) for n in range(count)], plan)
    shutil.rmtree(parts)
    return embedded


def _join(file: Path, parts: Sequence[Path], plan: dict[str, Any]) -> None:
    from pyarrow import parquet

    about = {k: v for k, v in plan.items() if k not in ("data", "guarded")}
    schema: pyarrow.Schema = parquet.read_schema(parts[0])
    schema = schema.with_metadata({"cxr_foundation": json.dumps(about)})
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in parts:
            writer.write_table(parquet.read_table(part).replace_schema_metadata(schema.metadata))
