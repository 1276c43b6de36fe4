"""SPCXR: the authors' file, or one of your own by SiT or GMML, as published folders.

    python conversion/spcxr.py FILE OUT_DIR

No file of SPCXR is published, so its card names none. A SiT file holds a student and a teacher:
both are converted, into OUT_DIR/student and OUT_DIR/teacher, since only a probe tells which serves
better. A GMML file holds one. The folders are of the size that the file has, not only ViT-S.
"""

import sys
from pathlib import Path

from cxr_foundation.convert import layouts, read
from cxr_foundation.models.loading import convert_to_folder

if __name__ == "__main__":
    file, folder = map(Path, sys.argv[1:])
    for encoder in layouts["sit"].encoders(tuple(read(file).tensors)):
        report = convert_to_folder(file, folder / encoder, layout="sit", takes=encoder)
        print("\n".join([*report.lines(), f"wrote {folder / encoder}", ""]))
