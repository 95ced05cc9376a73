"""Where a partition is read on."""

from __future__ import annotations

import pytest

from pipelines.dispatcher.positions import Extent, Start, start


@pytest.mark.parametrize(
    ("known", "extent", "expected"),
    [
        pytest.param(None, Extent(0, 0, None), Start(0), id="a new topic"),
        pytest.param(None, Extent(3, 9, None), Start(3), id="a ledger that never read it takes all that is there"),
        pytest.param(None, Extent(3, 9, 7), Start(3), id="a ledger made anew does not trust the group's offset"),
        pytest.param(5, Extent(0, 9, 5), Start(5), id="goes on"),
        pytest.param(9, Extent(0, 9, 9), Start(9), id="goes on at the end"),
        pytest.param(7, Extent(0, 9, 5), Start(7), id="a crash between rows and commit"),
        pytest.param(5, Extent(0, 9, 7), Start(5), id="a ledger restored from a backup"),
        pytest.param(5, Extent(8, 9, 5), Start(8), id="retention was faster; the ledger counts what is missing"),
        pytest.param(5, Extent(0, 3, 5), Start(0, rewound=True), id="the partition ends before what was read"),
        pytest.param(5, Extent(0, 9, None), Start(0, rewound=True), id="a topic of that name made anew"),
        pytest.param(5, Extent(0, 0, None), Start(0, rewound=True), id="a broker that lost everything"),
    ],
)
def test_the_ledger_decides_unless_the_broker_lost_its_data(known: int | None, extent: Extent, expected: Start):
    assert start(known, extent) == expected


def test_that_the_group_has_no_offset_says_nothing_when_it_never_had_one():
    assert start(5, Extent(0, 9, None), committed_once=False) == Start(5)
    assert start(5, Extent(0, 3, None), committed_once=False) == Start(0, rewound=True)


def test_records_from_before_the_ledgers_offset_mean_that_the_broker_went_back():
    assert start(5, Extent(0, 9, 5), went_back=True) == Start(0, rewound=True)
