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

from cxr_foundation import catalog

ROOT = Path(__file__).resolve().parent.parent
FOLDER_DOOR, NAME_DOOR = '"local-dir:FOLDER"', '"{name}"'


def results_of(path: Path) -> list[catalog.Result]:
    """AUROC at 20 labels per class and with all of them, for each task and their mean."""
    found = json.loads(path.read_text())
    protocol = found["protocol"]
    dataset = f"{found['data']['name']}, {protocol['split_test']}"
    blocks = [*found["tasks"], {**found["mean"], "title": "mean over the averaged tasks"}]
    return [
        catalog.Result(
            task=f"{block['title']}: {row.replace('_', ' ')}",
            dataset=dataset,
            setting=f"{count} labels per class, {protocol['mode']}",
            metric="AUROC",
            value=round(cell["auroc"], 4),
            interval=(round(cell["low"], 4), round(cell["high"], 4)),
            command=found["command"],
        )
        for block in blocks
        for row in ("model", "untrained", "raw_pixels", "border", "metadata")
        for count in ("20", "all")
        for cell in [block["rows"][row][count]]
    ]


def main(folder: Path, results: list[Path]) -> None:
    """Copy the weights, and write the card with its results."""
    record = catalog.read_record(folder)
    target = ROOT / "cxr_foundation" / "weights" / record.name
    target.mkdir(exist_ok=True)
    for name in ("model.safetensors", "config.json"):
        shutil.copyfile(folder / name, target / name)
    figures = tuple(result for path in results for result in results_of(path))
    card = folder / "README.md"
    body = catalog.body_of(card).replace("import timm\n", "import timm, cxr_foundation\n", 1)
    body = body.replace(FOLDER_DOOR, NAME_DOOR.format(name=record.name))
    body = body.replace('load("FOLDER")', f'create_model("{record.name}")')
    body = body.replace('processor("FOLDER")', f'processor("{record.name}")')
    record = dataclasses.replace(record, default=True, results=figures)
    text = catalog.render_card(record, body=body, hub_keys=catalog.hub_keys_of(card))
    (ROOT / "model_cards" / f"{record.name}.md").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
