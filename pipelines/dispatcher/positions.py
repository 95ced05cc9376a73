"""Where to go on reading a partition: the ledger decides, and the broker may have lost its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: (topic, partition) -> epoch in which its records were read; a rewind begins a new one.
Epochs = Mapping[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Extent:
    """What the broker holds of a partition.

    Attributes:
        begin: its first offset.
        end: the offset that its next record will have.
        committed: our group's committed offset, None where it has none.
    """

    begin: int
    end: int
    committed: int | None


@dataclass(frozen=True, slots=True)
class Start:
    """Where to read on.

    Attributes:
        offset: of the next record to read.
        rewound: the broker's data is not what the ledger has read: the ledger must be told to go back.
    """

    offset: int
    rewound: bool = False


def start(known: int | None, extent: Extent, *, committed_once: bool = True, went_back: bool = False) -> Start:
    """Where to read on.

    The ledger's offset counts, not the group's: it was written together with the rows. It means nothing any more when
    the partition ends before it, when records came that lie before it, or when the group has no committed offset though
    the ledger knows that it once had one: then the broker lost its data or the topic was made anew. All that it holds
    is read then; what the ledger has, it knows by identity.

    Args:
        known: the ledger's next offset, None for a partition never read.
        extent: what the broker holds.
        committed_once: whether a commit of the partition was ever acknowledged; without one its absence says nothing.
        went_back: the broker gave records from before the ledger's offset.
    """
    if known is None:
        return Start(extent.begin)
    if went_back or (extent.committed is None and committed_once) or extent.end < known:
        return Start(extent.begin, rewound=True)
    return Start(max(known, extent.begin))
