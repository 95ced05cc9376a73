"""The room that is left: by file system, as df counts it, and of nothing that is not there."""

from __future__ import annotations

import shutil
from pathlib import Path

from monitoring.disks import Disks


def shown(folders: dict[str, Path]) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels["volume"]): sample.value
        for family in Disks(folders).collect()
        for sample in family.samples
    }


def test_folders_of_one_file_system_are_one_volume_named_by_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    found = shown({"state": tmp_path, "kafka": tmp_path / "data", "proc": Path("/proc")})
    assert set(found) == {
        ("careloom_disk_free_bytes", "kafka+state"),
        ("careloom_disk_size_bytes", "kafka+state"),
        ("careloom_disk_free_bytes", "proc"),
        ("careloom_disk_size_bytes", "proc"),
    }


def test_free_and_size_are_those_of_df(tmp_path: Path) -> None:
    found = shown({"state": tmp_path})
    used = shutil.disk_usage(tmp_path)
    free, size = found["careloom_disk_free_bytes", "state"], found["careloom_disk_size_bytes", "state"]
    assert abs(free - used.free) < 0.05 * used.total
    assert abs(size - (used.used + used.free)) < 0.05 * used.total


def test_a_folder_that_is_not_there_is_not_shown(tmp_path: Path) -> None:
    assert shown({"gone": tmp_path / "gone"}) == {}
