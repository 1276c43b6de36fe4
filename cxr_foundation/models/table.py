"""`embed_table`: the features of a whole data set as one parquet file, resumable."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from cxr_foundation._version import __version__
from cxr_foundation.contract import InputContract
from cxr_foundation.data.opening import fingerprint
from cxr_foundation.data.sample import check_fits, source_of
from cxr_foundation.data.study import Study
from cxr_foundation.errors import (
    DataError,
    ImageError,
    MissingExtra,
    NoImages,
    OutputExists,
    OutputFailed,
)
from cxr_foundation.files import atomic_write
from cxr_foundation.images.processor import Processor
from cxr_foundation.models import loading
from cxr_foundation.models.encoding import Encoding, Precision, folded

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Embedded", "Engine", "Part", "PartMaker", "embed_table"]

Engine = Literal["local", "ray"]
Refused = tuple[str, str, str]
_PLAN = "plan.json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Embedded:
    """What came of it.

    Attributes:
        output: The parquet file: columns `path` and `embedding`.
        rows: Radiographs in it.
        refused: (path, kind of error, reason) of each that could not be used.
    """

    output: Path
    rows: int
    refused: tuple[Refused, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "output": str(self.output),
            "rows": self.rows,
            "refused": [{"path": p, "kind": k, "reason": r} for p, k, r in self.refused],
        }


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The rows of some consecutive studies.

    Attributes:
        paths: N names.
        features: float32 (N, D).
        refused: Those that are not among them.
    """

    paths: tuple[str, ...]
    features: torch.Tensor
    refused: tuple[Refused, ...]


def embed_table(
    studies: Sequence[Study],
    *,
    model: str | Path,
    output: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    precision: Precision = "float32",
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

    Args:
        studies: Files, or samples of shards.
        model: Name in the catalogue, or a published folder.
        output: File to write. Its column `path` has the names relative to `root`.
        root: Folder of the data set.
        precision: See `Encoding`.
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
        device=device,
    )  # fmt: skip
    plan = {**maker.plan(), "rows_per_part": rows_per_part, "data": fingerprint(studies)}
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


class PartMaker:
    """Reads, prepares and embeds studies by their numbers; one for each process that does so.

    Args:
        studies: All of them.
        model: Name in the catalogue, or a published folder.
        root: See `embed_table`.
        precision: See `Encoding`.
        batch_size: Radiographs per pass.
        device: See `Encoding`.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        *,
        model: str,
        root: str | os.PathLike[str] | None,
        precision: Precision,
        batch_size: int,
        device: str | None,
    ) -> None:
        self.arguments = {
            "model": model,
            "root": root,
            "precision": precision,
            "batch_size": batch_size,
            "device": device,
        }
        self.studies = studies
        self._prepared = _Prepared(studies, loading.contract_of(model), root)
        is_folder = Path(model).is_dir()
        encoder = loading.load(model) if is_folder else loading.create_model(model, num_classes=0)
        self._sha256 = _digest(encoder.eval())
        self._encoding = Encoding(
            folded(encoder, _example(self._prepared.contract)), device=device, precision=precision
        )
        self._encoding.model.to(memory_format=self._encoding.layout)
        self.width = self._encoding(_example(self._prepared.contract)).shape[1]

    def plan(self) -> dict[str, Any]:
        """What the features depend on, apart from the data."""
        return {
            "model": self.arguments["model"],
            "weights_sha256": self._sha256,
            "contract": self._prepared.contract.to_dict(),
            "precision": self.arguments["precision"],
            "batch_size": self.arguments["batch_size"],
            "cxr_foundation": __version__,
            "torch": str(torch.__version__),
            "timm": version("timm"),
        }

    def parts(
        self, jobs: Sequence[tuple[int, range]], *, workers: int = 0
    ) -> Iterator[tuple[int, Part]]:
        """(number, part) of each job, in order; `workers` processes read ahead across parts."""
        size = int(str(self.arguments["batch_size"]))
        batches = [span[i : i + size] for _, span in jobs for i in range(0, len(span), size)]
        loader = iter(
            DataLoader(
                self._prepared,
                batch_size=None,
                sampler=batches,
                num_workers=workers,
                pin_memory=workers > 0 and self._encoding.device.type == "cuda",
            )
        )
        for number, span in jobs:
            paths: list[str] = []
            refused: list[Refused] = []
            features = [torch.empty(0, self.width)]
            for _ in range(0, len(span), size):
                named, pixels, unusable = next(loader)
                paths += named
                refused += unusable
                if pixels is not None:
                    features.append(self._encoding(pixels))
            yield (
                number,
                Part(paths=tuple(paths), features=torch.cat(features), refused=tuple(refused)),
            )


class _Prepared(Dataset[Any]):
    """An item is a whole batch: names, float32 (N, C, H, W) or None, and what was refused."""

    def __init__(
        self,
        studies: Sequence[Study],
        contract: InputContract,
        root: str | os.PathLike[str] | None,
    ) -> None:
        # A contract with gaps is refused here, before a picture is looked at.
        Processor(contract)
        check_fits(studies, contract)
        self.studies, self.contract = studies, contract
        self._root = None if root is None else Path(root)

    def __getitem__(self, numbers: range) -> tuple[list[str], torch.Tensor | None, list[Refused]]:
        names, pixels, refused = [], [], []
        for number in numbers:
            name = f"number {number}"
            try:
                study = self.studies[number]
                name = self._name(study.path)
                source, contract = source_of(study, self.contract)
                pixels.append(Processor(contract).prepare(source))
            except (DataError, ImageError) as error:
                refused.append((name, type(error).__name__, error.reason))
            else:
                names.append(name)
        return names, torch.stack(pixels) if pixels else None, refused

    def _name(self, path: Path) -> str:
        inside = self._root is not None and path.is_relative_to(self._root)
        return path.relative_to(self._root).as_posix() if inside and self._root else str(path)


def _example(contract: InputContract) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, contract.channels, *contract.size, generator=generator)


def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


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
        temporary.write_text(json.dumps(part.refused))
    # Last: it says that the part is complete.
    with atomic_write(_file(parts, number)) as temporary:
        parquet.write_table(arrow.table(columns), temporary, compression="zstd")


def _finish(output: Path, parts: Path, count: int, plan: dict[str, Any]) -> Embedded:
    """All parts as one file, part by part; then they go."""
    from pyarrow import parquet

    refused: list[Refused] = []
    rows = 0
    for number in range(count):
        listed = json.loads(_file(parts, number).with_suffix(".json").read_bytes())
        refused += [(path, kind, reason) for path, kind, reason in listed]
        rows += parquet.read_metadata(_file(parts, number)).num_rows
    if not rows:
        path, kind, reason = refused[0]
        shutil.rmtree(parts)
        raise NoImages(
            "data", "none of the radiographs can be used", f"The first: {path}: {kind}: {reason}."
        )
    embedded = Embedded(output=output, rows=rows, refused=tuple(refused))
    if refused:
        with atomic_write(f"{output}.refused.jsonl") as temporary:
            lines = (json.dumps(r) for r in embedded.to_dict()["refused"])
            temporary.write_text("".join(f"{line}\n" for line in lines))
    if not output.exists():
        with atomic_write(output) as temporary:
            _join(temporary, [_file(parts, n) for n in range(count)], plan)
    shutil.rmtree(parts)
    return embedded


def _join(file: Path, parts: Sequence[Path], plan: dict[str, Any]) -> None:
    from pyarrow import parquet

    about = {k: v for k, v in plan.items() if k != "data"}
    schema: pyarrow.Schema = parquet.read_schema(parts[0])
    schema = schema.with_metadata({"cxr_foundation": json.dumps(about)})
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in parts:
            writer.write_table(parquet.read_table(part).replace_schema_metadata(schema.metadata))
