"""Complete a card by whoever holds the authors' file: sha256, size, golden embedding.

    python conversion/complete_card.py FILE NAME

The file is converted strictly; then the card in `model_cards/` states what only bytes can tell, and
that the conversion ran on them. Read the diff, and name where the file came from in the commit.
"""

import dataclasses
import datetime
import sys
import tempfile
from pathlib import Path

from cxr_foundation import catalog
from cxr_foundation.images import phantom
from cxr_foundation.models.loading import convert_to_folder, load
from cxr_foundation.models.verify import golden_embedding

ROOT = Path(__file__).resolve().parent.parent


def main(file: Path, name: str) -> None:
    """Write the card anew."""
    record = catalog.checkpoint(name)
    with tempfile.TemporaryDirectory() as scratch:
        report = convert_to_folder(file, Path(scratch) / name, name=name)
        found = golden_embedding(load(Path(scratch) / name), record.contract)
    bytes_held = catalog.Evidence(
        verified="bytes", source=file.name, date=datetime.date.today().isoformat()
    )
    known = ("golden", "source.sha256", "source.size_bytes")
    completed = dataclasses.replace(
        record,
        source=dataclasses.replace(record.source, sha256=report.sha256, size_bytes=report.size),
        conversion=dataclasses.replace(record.conversion, ran_on_authors_file=True),
        golden=catalog.Golden(phantom=phantom.NAME, embedding=tuple(found.tolist())),
        evidence={**record.evidence, **dict.fromkeys(known, bytes_held)},
        unknown={key: why for key, why in record.unknown.items() if key not in known},
    )
    card = ROOT / "model_cards" / f"{name}.md"
    body, hub_keys = catalog.body_of(card), catalog.hub_keys_of(card)
    card.write_text(catalog.render_card(completed, body=body, hub_keys=hub_keys))
    print("\n".join([*report.lines(), f"wrote {card}; now read what its text says"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
