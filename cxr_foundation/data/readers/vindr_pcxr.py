"""VinDr-PCXR, children (Pham et al., PhysioNet 2022, https://physionet.org/content/vindr-pcxr).

Layout: `train/<image_id>.dicom`, `test/<image_id>.dicom`, `image_labels_{train,test}.csv` and
`annotations_{train,test}.csv`. Each picture of the training part was read by one radiologist.
The release does not say which pictures are of one patient. The view is not in the tables, sex and
age are in DICOM headers, which a reader does not open.
"""

from __future__ import annotations

from pathlib import Path

from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.readers.vindr_cxr import parts
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Study
from cxr_foundation.data.tables import columns_of, table_at

__all__ = ["read"]


def _is_pcxr(folder: Path) -> bool:
    tables = [table_at(folder, f"image_labels_{part}.csv") for part in ("train", "test")]
    return any(table is not None and "Bronchiolitis" in columns_of(table) for table in tables)


@reader("vindr_pcxr", title="VinDr-PCXR (paediatric)", recognises=_is_pcxr)
def read(folder: Path, *, missing: str = "refuse") -> list[Study]:
    """Read VinDr-PCXR; pictures in the order of their first row, train before test.

    Args:
        folder: Where `train`, `test` and the tables lie.
        missing: "refuse" or "skip" pictures that are not there.

    Raises:
        BadIndex: A table cannot be taken at its word.
    """
    pictures = Pictures(folder, missing=missing)
    studies = []
    for part, images in parts(folder, "vindr_pcxr"):
        for name, image in images.items():
            path = pictures.at(image.row, f"{part}/{name}.dicom")
            if path is None:
                continue
            patient = pseudonym("vindr_pcxr", name)
            labels, absent, uncertain = image.stated("majority")
            studies.append(
                Study(
                    path=path,
                    labels=labels,
                    absent=absent,
                    uncertain=uncertain,
                    patient=patient,
                    group=patient,
                    split=part,
                    source="vindr_pcxr",
                    boxes=tuple(image.boxes),
                )
            )
    return studies
