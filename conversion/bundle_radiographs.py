"""Choose, shrink and write the radiographs that ship in `cxr_foundation/demo/radiographs`.

    python conversion/bundle_radiographs.py INDEX.csv SPLITS.csv OUT_DIR

Takes 25 images of each class of the three standing tasks from
the test part, one per patient, ordered by the SHA-256 of the file name.
"""

import csv
import hashlib
import sys
from pathlib import Path

from PIL import Image

from cxr_foundation.files import atomic_folder
from cxr_foundation.images.phantom import draw_dicom

CLASSES = ["kermany viral", "kermany bacterial", "shenzhen tb", "shenzhen normal"]
CLASSES += ["nih pneumonia", "nih normal"]
KEEP = "file source patient split_group labels view age_group licence sex age original_size".split()


def main(index_csv: Path, splits_csv: Path, out: Path) -> None:
    """Write images at most 256 px long, `index.csv`, `splits.csv` and a drawn DICOM."""
    splits = {r["split_group"]: r["split"] for r in csv.DictReader(splits_csv.open())}
    rows = [r for r in csv.DictReader(index_csv.open()) if splits[r["split_group"]] == "test"]
    rows.sort(key=lambda r: hashlib.sha256(r["file"].encode()).hexdigest())
    with atomic_folder(out) as folder:
        (folder / "images").mkdir()
        chosen: dict[str, tuple[dict[str, str], str]] = {}
        for source, label in (c.split() for c in CLASSES):
            own = [r for r in rows if source in r["file"] and label in r["labels"].split("|")]
            own = list(
                {r["split_group"]: r for r in own if r["split_group"] not in chosen}.values()
            )
            for i, row in enumerate(own[:25]):
                picture = Image.open(index_csv.parent / row["file"])
                picture.thumbnail((256, 256), Image.Resampling.LANCZOS)
                picture.save(folder / row["file"], quality=90)
                chosen[row["split_group"]] = (row, "dev" if i < 10 else "test")
        with (folder / "index.csv").open("w", newline="") as file:
            index = csv.DictWriter(file, KEEP, extrasaction="ignore", lineterminator="\n")
            index.writeheader()
            index.writerows(row for row, _ in chosen.values())
        with (folder / "splits.csv").open("w", newline="") as file:
            lines = [["split_group", "split"], *([g, side] for g, (_, side) in chosen.items())]
            csv.writer(file, lineterminator="\n").writerows(lines)
        draw_dicom(folder / "phantom.dcm")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
