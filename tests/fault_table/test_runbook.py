"""Runbooks as programs: which commands a page has, and when one is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fault_table import runbook
from tests.fault_table.runbook import Command, carry_out, command, commands

PAGE = """# A

## Diagnosis

```sh
careloom status                 # which part
echo one   # shows: on.
# a remark
```

Words.

## Mitigation

1. So:

   ```sh
   false    # ends with: 1
   ```
"""


def test_a_pages_commands_are_found_under_their_heading() -> None:
    assert commands(PAGE, "Diagnosis") == [Command("careloom status"), Command("echo one", shows="on.")]
    assert commands(PAGE, "Mitigation") == [Command("false", code=1)]


def test_a_pages_queries_look_back_as_far_as_a_shortened_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "A.md").write_text("## Diagnosis\n\n```sh\npromtool query 'increase(x[2m])'\n```\n", "utf-8")
    monkeypatch.setattr(runbook, "RUNBOOKS", tmp_path)
    done = carry_out("A", "Diagnosis", folder=tmp_path, environment=os.environ, addresses={}, words={}, scale=0.25)
    assert done.steps[0].line == "promtool query 'increase(x[30s])'"


def test_a_hash_that_belongs_to_the_command_stays() -> None:
    assert command("sed 's#a#b#' x    # shows: b").line == "sed 's#a#b#' x"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("echo one    # shows: ^one$", None),
        ("echo one    # shows: two", "does not show"),
        ("false", "ended with 1"),
        ("false    # ends with: 1", None),
        ("echo one; false    # ends with: 1    # shows: one", None),
        ("true    # ends with: 7", "ended with 0"),
        ("there-is-no-such-command", "ended with 127"),
        ("echo 127.0.0.1:9090    # shows: 127.0.0.1:21090", None),
        ("echo SCENARIO    # shows: in_visit.note", None),
        ("echo ID", "nothing is known to stand for ID"),
    ],
)
def test_a_command_is_wrong_when_it_ends_or_shows_otherwise_than_its_page_says(
    line: str, wrong: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "A.md").write_text(f"# A\n\n## Diagnosis\n\n```sh\n{line}\n```\n", "utf-8")
    monkeypatch.setattr(runbook, "RUNBOOKS", tmp_path)
    done = carry_out(
        "A",
        "Diagnosis",
        folder=tmp_path,
        environment=os.environ,
        addresses={"127.0.0.1:9090": "127.0.0.1:21090"},
        words={"SCENARIO": "in_visit.note"},
    )
    assert len(done.steps) == 1
    assert (done.wrong == []) if wrong is None else (wrong in done.wrong[0])
