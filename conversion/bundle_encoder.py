"""Put a pretrained encoder into the package: weights, config and the catalogue's card.

    python conversion/bundle_encoder.py PUBLISHED_FOLDER [RESULTS.json …]

The card says what the run's own card says, and besides that the encoder is what the bare
architecture name loads, and the figures of each results.json (`cxr transfer classify`).
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from cxr_foundation import catalog

ROOT = Path(__file__).resolve().parent.parent
ROWS = ("model", "untrained", "raw_pixels", "border", "metadata")
COUNTS = ("20", "all")
READING = """## Results: {features} features

AUROC of a linear probe, mean over {draws} draws, with 95 % intervals over patients and draws. The
part `{side}` was read for it on {date}, by

    {command}

{table}

Encoder minus untrained twin, mean over the averaged tasks, paired: {gain}. Encoder minus raw
pixels: {raw}. Where raw pixels are ahead, the encoder is not yet worth its cost on that task.
`cxr_small` is a folder of public radiographs at 512 pixels with frozen splits by patient; not all
of them may be passed on. `cxr demo` runs the same protocol on 150 of its test radiographs, and so
reads that part again whenever it is run. Nothing was chosen by either.
"""


def command_of(found: dict[str, Any]) -> str:
    """What was typed, but for the place of the report."""
    return str(found["command"]).partition(" --output")[0]


def blocks_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Each task, and the mean over those that are averaged."""
    return [*found["tasks"], {**found["mean"], "title": "mean over the averaged tasks"}]


def results_of(found: dict[str, Any]) -> list[catalog.Result]:
    """AUROC at 20 labels per class and with all of them, for every row."""
    protocol = found["protocol"]
    way = f"{protocol['mode']}, {protocol['features']} features"
    return [
        catalog.Result(
            task=f"{block['title']}: {row.replace('_', ' ')}",
            dataset=f"{found['data']['name']}, {protocol['split_test']}",
            setting=f"{count} labels per class, {way}",
            metric="AUROC",
            value=round(cell["auroc"], 4),
            interval=(round(cell["low"], 4), round(cell["high"], 4)),
            command=command_of(found),
        )
        for block in blocks_of(found)
        for row in ROWS
        for count in COUNTS
        for cell in [block["rows"][row][count]]
    ]


def section_of(found: dict[str, Any]) -> str:
    """The same figures for people."""
    head = ["labels per class", "task", *(row.replace("_", " ") for row in ROWS)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for count in COUNTS:
        for block in blocks_of(found):
            cells = [block["rows"][row][count] for row in ROWS]
            shown = [f"{c['auroc']:.3f} ({c['low']:.3f}–{c['high']:.3f})" for c in cells]
            lines.append("| " + " | ".join([count, block["title"], *shown]) + " |")
    differences = found["mean"]["differences"]
    gain, raw = (
        "; ".join(
            f"{d['estimate']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f}) at {count}"
            for count in COUNTS
            for d in [differences[row][count]]
        )
        for row in ("untrained", "raw_pixels")
    )
    return READING.format(
        features=found["protocol"]["features"],
        draws=found["protocol"]["draws"],
        side=found["protocol"]["split_test"],
        date=found["created"][:10],
        command=command_of(found),
        table="\n".join(lines),
        gain=gain,
        raw=raw,
    )


def main(folder: Path, results: list[Path]) -> None:
    """Copy the weights, and write the card with its results."""
    record = catalog.read_record(folder)
    target = ROOT / "cxr_foundation" / "weights" / record.name
    target.mkdir(exist_ok=True)
    for name in ("model.safetensors", "config.json"):
        shutil.copyfile(folder / name, target / name)
    read = [json.loads(path.read_text()) for path in results]
    figures = tuple(result for found in read for result in results_of(found))
    card = folder / "README.md"
    body = catalog.body_of(card).replace("import timm\n", "import timm, cxr_foundation\n", 1)
    body = body.replace('"local-dir:FOLDER"', f'"{record.name}"')
    body = body.replace('load("FOLDER")', f'create_model("{record.name}")')
    body = body.replace('processor("FOLDER")', f'processor("{record.name}")')
    sections = "".join(f"{section_of(found)}\n" for found in read)
    body = body.replace("## Limits", f"{sections}## Limits")
    record = dataclasses.replace(record, default=True, results=figures)
    text = catalog.render_card(record, body=body, hub_keys=catalog.hub_keys_of(card))
    (ROOT / "model_cards" / f"{record.name}.md").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
