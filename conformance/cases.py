"""The table of cases: a drawn file, and the picture that the standard makes of it, or a refusal.

No DICOM library takes part. "Shown" is from 0 to 1, bone bright: the output range of the last grey
stage that the header defines (PS3.3 C.11), inverted for MONOCHROME1.
"""

from __future__ import annotations

import cases_files
import cases_grey
from case import JUDGEMENT, Case

__all__ = ["CASES", "JUDGEMENT", "Case"]

CASES: tuple[Case, ...] = tuple(
    case for group in (*cases_grey.GROUPS, *cases_files.GROUPS) for case in group()
)
"""Every case, in the order of the table."""
