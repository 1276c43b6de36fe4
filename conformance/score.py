"""Scores DICOM readers on drawn files with exact oracles, and prints the Markdown table.

    python conformance/score.py [--write FOLDER] [--verbose]

Right is the drawn picture within a float's rounding (lossy codecs: 1 step of 8 bits, 2 of 12), or a
refusal where the file has to be refused. Wrong is a picture that is another one, without an error.
Readers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import tempfile
from collections import Counter
from pathlib import Path

from cases import CASES, JUDGEMENT, Case
from readers import READERS, Reader, error, read

# A reader whose range has to be fitted may have rounded to 10 bits, and the fit moves with a lossy
# codec's steps.
_FITTED, _LOSSY = 1e-3, 2.0

_ALL, _FIXED = "all", "all that the standard leaves no choice in"


def verdict(reader: Reader, case: Case, path: Path) -> str:
    """One of "right", "refused" and "wrong"."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pixels = read(reader, path)
    if case.shown is None:
        return "right" if pixels is None else "wrong"
    if pixels is None:
        return "refused"
    tolerance = case.tolerance if reader.exact else max(_LOSSY * case.tolerance, _FITTED)
    off = error(pixels, case.shown, exact=reader.exact, inside=case.inside)
    return "right" if off <= tolerance else "wrong"


def write(folder: Path) -> list[Path]:
    """Every case as a file, its number and name first."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, case in enumerate(CASES):
        name = re.sub(r"[^a-z0-9]+", "_", f"{case.group} {case.name}".lower()).strip("_")
        paths.append(folder / f"{number:03d}_{name}.dcm")
        paths[-1].write_bytes(case.data)
    return paths


def table(readers: list[Reader], scores: dict[tuple[str, str], Counter[str]]) -> str:
    """One row for each group, one for all."""
    groups = list(dict.fromkeys(case.group for case in CASES))
    lines = [
        "| files | " + " | ".join(str(reader.title) for reader in readers) + " |",
        "|---" * (len(readers) + 1) + "|",
    ]
    for group in [*groups, _FIXED, _ALL]:
        cells = []
        for reader in readers:
            found = scores[reader.name, group]
            wrong = f", **{found['wrong']} wrong**" if found["wrong"] else ""
            refused = f", {found['refused']} refused" if found["refused"] else ""
            cells.append(f"{found['right']} of {found.total()} right{wrong}{refused}")
        lines.append(f"| {group} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Write the files, read each with each, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="keep the drawn files in this folder")
    parser.add_argument("--verbose", action="store_true", help="name what each did not get right")
    asked = parser.parse_args()
    readers = [reader for reader in READERS if reader.title]
    scores: dict[tuple[str, str], Counter[str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        paths = write(asked.write or Path(scratch))
        for reader in readers:
            for case, path in zip(CASES, paths, strict=True):
                found = verdict(reader, case, path)
                fixed = [] if case.group in JUDGEMENT else [_FIXED]
                for group in (case.group, _ALL, *fixed):
                    scores.setdefault((reader.name, group), Counter())[found] += 1
                if asked.verbose and found != "right":
                    print(f"{reader.name}: {found}: {case.group}: {case.name} ({case.section})")
    print(table(readers, scores))


if __name__ == "__main__":
    main()
