"""Every file and folder that is placed among the tests is there: one that is renamed is not forgotten there."""

from __future__ import annotations

from pathlib import Path

from tests import side_by_side

PROJECT = Path(__file__).parents[1]


def test_what_is_placed_is_there() -> None:
    files = {*side_by_side._FIRST, *side_by_side._LATER, *side_by_side._WITH, *side_by_side._WITH.values()}
    assert [file for file in sorted(files) if not (PROJECT / file).is_file()] == []
    assert [folder for folder in side_by_side._ONE_SERVER if not (PROJECT / folder).is_dir()] == []
