"""Radiographs and what is known about them: indices, folders, data sets, splits. No torch."""

from cxr_foundation.data.index import read_index
from cxr_foundation.data.opening import open_data
from cxr_foundation.data.reading import data_sets, read
from cxr_foundation.data.sample import Sample
from cxr_foundation.data.shards import Shards, read_shard
from cxr_foundation.data.splits import by_split, check_disjoint, may_ship
from cxr_foundation.data.study import Box, Mask, Study

__all__ = [
    "Box",
    "Mask",
    "Sample",
    "Shards",
    "Study",
    "by_split",
    "check_disjoint",
    "data_sets",
    "may_ship",
    "open_data",
    "read",
    "read_index",
    "read_shard",
]
