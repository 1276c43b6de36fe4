"""Read the tables of six published data sets whole, and compare counts with what is published.

    python benchmarks/readers.py

The tables are the ones that torchxrayvision's wheel carries (NIH, PadChest, CheXpert, RSNA, SIIM,
VinBigData); there are no pictures, so every path that a table names counts as there. What is
checked is that every row is understood and that images, patients, findings and boxes are as many
as the owners say; MIMIC-CXR, VinDr-PCXR, COVIDx, covid-chestxray and BIMCV are not among them.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import time
import zipfile
from pathlib import Path
from unittest import mock

from cxr_foundation import data
from cxr_foundation.data.listing import Pictures

# Data set → table in the wheel, its official name, options, and (what, count, who says so).
TABLES = {
    "nih": (
        {
            "Data_Entry_2017_v2020.csv.gz": "Data_Entry_2017_v2020.csv.gz",
            "BBox_List_2017.csv.gz": "BBox_List_2017.csv.gz",
        },
        {"split": None},
    ),
    "padchest": (
        {"PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz": ""},
        {},
    ),
    "chexpert": ({"chexpert_train.csv.gz": "train.csv.gz"}, {}),
    "rsna": ({"kaggle_stage_2_train_labels.csv.zip": "stage_2_train_labels.csv"}, {}),
    "siim": ({"siim-pneumothorax-train-rle.csv.gz": "train-rle.csv.gz"}, {}),
    "vindr_cxr": ({"vinbigdata-train.csv.gz": "train.csv.gz"}, {}),
}
# Owners' figures. ChestX-ray14: Wang et al. 2017 (112,120 images, 30,805 patients, 984 boxes).
# CheXpert: 223,414 images of 64,540 patients in train.csv (Irvin et al. 2019). RSNA: 26,684
# images and 6,012 with opacities. VinBigData: 15,000 images.
PUBLISHED = {
    "nih": {"images": 112_120, "patients": 30_805, "boxes": 984},
    "chexpert": {"images": 223_414, "patients": 64_540},
    "rsna": {"images": 26_684, "pneumonia": 6_012},
    "vindr_cxr": {"images": 15_000},
}


def main() -> None:
    """Print one Markdown row per data set; stop with an error where a count is another."""
    spec = importlib.util.find_spec("torchxrayvision")
    if spec is None or spec.origin is None:
        raise SystemExit("torchxrayvision is not installed: pip install torchxrayvision")
    wheel = Path(spec.origin).parent / "data"
    print("| data set | images | patients | boxes | masks | pneumonia | as published | s |")
    print("|---|---|---|---|---|---|---|---|")
    wrong = []
    for name, (files, options) in TABLES.items():
        with tempfile.TemporaryDirectory() as folder:
            for source, target in files.items():
                place = Path(folder) / (target or source)
                if source.endswith(".zip"):
                    with zipfile.ZipFile(wheel / source) as archive:
                        place.write_bytes(archive.read(archive.namelist()[0]))
                else:
                    shutil.copyfile(wheel / source, place)
            start = time.perf_counter()
            with (
                mock.patch.object(Pictures, "at", lambda self, row, path: Path(path)),
                mock.patch.object(Pictures, "named", lambda self, row, path: Path(path)),
            ):
                studies = data.read(folder, **options)
            seconds = time.perf_counter() - start
        found = {
            "images": len(studies),
            "patients": len({s.patient for s in studies}),
            "boxes": sum(len(s.boxes) for s in studies),
            "masks": sum(len(s.masks) for s in studies),
            "pneumonia": sum("pneumonia" in s.labels for s in studies),
        }
        for mask in [m for s in studies for m in s.masks][:200]:
            mask.array()
        known = PUBLISHED.get(name, {})
        differs = {k: v for k, v in known.items() if found[k] != v}
        wrong += [f"{name}: {k} is {found[k]}, published {v}" for k, v in differs.items()]
        verdict = "differs" if differs else ", ".join(known) or "not compared"
        counts = " | ".join(f"{n:,}" for n in found.values())
        print(f"| {name} | {counts} | {verdict} | {seconds:.1f} |", flush=True)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
