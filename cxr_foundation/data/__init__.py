"""Radiographs and what is known about them: indices, folders, splits by patient. No torch."""

from cxr_foundation.data.index import read_index
from cxr_foundation.data.splits import by_split, check_disjoint, may_ship
from cxr_foundation.data.study import Study

__all__ = ["Study", "by_split", "check_disjoint", "may_ship", "read_index"]
