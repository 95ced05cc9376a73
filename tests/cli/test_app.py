"""The command as a person meets it: it teaches, it starts fast, and its errors are one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fhir_adapters.errors import FhirUnavailable
from pipelines.cli.app import COMMANDS, GROUPS, build, run
from pipelines.errors import ConfigError, StackError


def careloom(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real command."""
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_help_names_every_command_and_says_where_to_begin() -> None:
    shown = careloom("--help")
    assert shown.returncode == 0
    assert "careloom demo" in shown.stdout
    for name in (*COMMANDS, *GROUPS):
        assert f"\n  {name} " in shown.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_teaches_by_example(command: str) -> None:
    shown = CliRunner().invoke(build(), [command, "--help"])
    assert shown.exit_code == 0
    assert f"careloom {command}" in shown.stdout.partition("Options:")[0].partition("Usage:")[2].partition("\n")[2]


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys; from pipelines.cli.app import build; build()\n"
        "print([name for name in ('kafka', 'sqlalchemy', 'alembic', 'psycopg', 'airflow', 'httpx', 'aiohttp',"
        " 'fhir.resources', 'starlette') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_what_goes_wrong_is_one_line_on_stderr_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def failing(error: BaseException) -> int:
        def app() -> None:
            raise error

        return run(app)

    assert failing(ConfigError("careloom.toml: no such key")) == 2
    assert failing(StackError("no Java")) == 1
    assert failing(FhirUnavailable("no answer")) == 1
    assert failing(KeyboardInterrupt()) == 130
    assert failing(SystemExit(3)) == 3
    assert failing(SystemExit(None)) == 0
    assert capsys.readouterr().err.splitlines() == [
        "careloom: careloom.toml: no such key",
        "careloom: no Java",
        "careloom: no answer",
        "careloom: stopped",
    ]


def test_a_fault_of_our_own_is_not_hidden() -> None:
    def app() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(app)


def test_a_misspelt_command_is_guessed() -> None:
    shown = careloom("upp")
    assert shown.returncode == 2
    assert "Did you mean" in shown.stderr


def test_status_without_a_stack_says_how_to_start_one(tmp_path: Path) -> None:
    shown = careloom("status", "--state", tmp_path)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == f"careloom: no stack runs in {tmp_path}: `careloom up` starts one\n"


def test_doctor_speaks_json_and_writes_nothing(tmp_path: Path) -> None:
    shown = careloom("doctor", "--json", "--state", tmp_path / "state")
    found = {finding["name"]: finding for finding in map(json.loads, shown.stdout.splitlines())}
    assert found["python"]["level"] == "ok"
    assert all(finding["remedy"] for finding in found.values() if finding["level"] != "ok")
    assert shown.returncode == (1 if any(finding["level"] == "missing" for finding in found.values()) else 0)
    assert not (tmp_path / "state").exists()


def test_up_with_an_unknown_broker_is_a_wrong_call(tmp_path: Path) -> None:
    shown = careloom("up", "--state", tmp_path, "--broker", "rabbit")
    assert shown.returncode == 2
    assert shown.stderr == "careloom: --broker rabbit: neither apache nor tansu, and no host:port\n"
