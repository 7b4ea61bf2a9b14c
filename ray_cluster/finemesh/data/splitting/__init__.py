"""Splitting a dataset into train, val and test so that nothing leaks.

    keys -> groups of rows that must stay together -> a split for each group

The split of a row depends on the seed and on what rows there are, never on their order.
"""

from finemesh.data.splitting.alike import AlikePictures, compare_pictures
from finemesh.data.splitting.assigning import assign_splits
from finemesh.data.splitting.dividing import split_dataset
from finemesh.data.splitting.keys import RowKey
from finemesh.data.splitting.leakage import measure_leakage

__all__ = [
    "AlikePictures",
    "RowKey",
    "assign_splits",
    "compare_pictures",
    "measure_leakage",
    "split_dataset",
]
