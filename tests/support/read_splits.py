"""What a reader yields, as a data set to look at."""

import datasets

from fabrec_hf.data.shards import arrow_table
from fabrec_hf.data.source import FaceSource


def load_split(source: FaceSource, split: str) -> datasets.Dataset:
    """Return the rows that a reader yields for a split or a subset of one; their pictures stay where they are."""
    table = arrow_table(list(source.rows(split)), source.features.arrow_schema)
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=source.features))
