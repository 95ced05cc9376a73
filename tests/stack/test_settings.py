"""Ports and secrets of a state folder, and the configuration made of them."""

from __future__ import annotations

import base64
import json
import socket
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pipelines import config
from pipelines.errors import ConfigError
from pipelines.stack import ports
from pipelines.stack.fhir import Hospital, other_hospital
from pipelines.stack.hapi import Hapi
from pipelines.stack.settings import (
    SECRETS,
    USUAL_PORTS,
    Kept,
    ModelServer,
    configuration,
    keep,
    toml,
    write_configuration,
)

MODEL = ModelServer("http://127.0.0.1:1/v1", "a-model", "1")


def test_ports_and_secrets_are_the_same_at_the_next_start(tmp_path: Path) -> None:
    first = keep(tmp_path, usual_ports=False)
    assert keep(tmp_path, usual_ports=False) == first
    assert len(set(first.ports.values())) == len(USUAL_PORTS)
    assert len(set(first.secrets.values())) == len(SECRETS)


def test_a_port_that_somebody_else_took_meanwhile_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    first = keep(tmp_path, usual_ports=False)
    with socket.create_server(("127.0.0.1", first.ports["kafka"])):
        second = keep(tmp_path, usual_ports=False)
    assert second.ports["kafka"] != first.ports["kafka"]
    assert {**second.ports, "kafka": 0} == {**first.ports, "kafka": 0}


def test_usual_ports_are_taken_where_they_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "free", lambda port: port != USUAL_PORTS["airflow"])
    kept = keep(tmp_path, usual_ports=True)
    assert kept.ports["gateway"] == USUAL_PORTS["gateway"]
    assert kept.ports["airflow"] != USUAL_PORTS["airflow"]


def test_files_with_secrets_are_readable_by_their_owner_only(kept: Kept) -> None:
    file = write_configuration(kept, configuration(kept, bootstrap="127.0.0.1:1", model=MODEL, sources=[]))
    for secret in (file, kept.state_dir / "stack-kept.json"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_secrets_are_not_in_the_repr(kept: Kept) -> None:
    assert not [secret for secret in kept.secrets.values() if secret in repr(kept)]


def test_airflows_fernet_key_is_one(kept: Kept) -> None:
    assert len(base64.urlsafe_b64decode(kept.secrets["airflow-fernet-key"])) == 32


def test_the_configuration_that_is_written_is_the_one_that_careloom_reads(kept: Kept) -> None:
    sources = [Hospital(kept).source(), Hapi(kept).source()]
    data = configuration(
        kept,
        bootstrap="127.0.0.1:19092",
        model=ModelServer("http://127.0.0.1:1/v1", 'a "model"\n\\', "第一版", stand_in=True),
        sources=sources,
        overrides={"dispatcher": {"linger": 0.05}, "locale": "en", "plugins": {"enabled": ("one", "two")}},
    )
    read = config.load(write_configuration(kept, data))

    assert read.state_dir == kept.state_dir
    assert (read.model.name, read.model.version, read.model.stand_in) == ('a "model"\n\\', "第一版", True)
    assert [(one.name, one.subscription, one.fhir_version) for one in read.sources] == [
        ("hospital", "backport", "R4"),
        ("hapi", "rest-hook", "R4"),
    ]
    assert read.source("hospital").token.get_secret_value() == kept.secrets["hospital-token"]
    assert read.source("hapi").server_token is None
    assert read.kafka.bootstrap == "127.0.0.1:19092"
    assert read.dispatcher.linger == 0.05
    assert read.dispatcher.metrics_port == kept.ports["dispatcher"]
    assert read.locale == "en"
    assert read.plugins.enabled == ("one", "two")


def test_another_hospitals_token_comes_from_the_environment(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARELOOM_FHIR_TOKEN", "its-token")
    source = other_hospital("http://127.0.0.1:1/fhir", kept)
    data = configuration(kept, bootstrap="127.0.0.1:1", model=MODEL, sources=[source])
    read = config.load(write_configuration(kept, data)).source("hospital")
    assert (read.base_url, read.server_token and read.server_token.get_secret_value()) == (
        "http://127.0.0.1:1/fhir",
        "its-token",
    )


def test_an_override_that_the_configuration_does_not_know_is_refused_when_it_is_read(kept: Kept) -> None:
    data = configuration(kept, bootstrap="127.0.0.1:1", model=MODEL, sources=[], overrides={"kafka": {"topik": "x"}})
    with pytest.raises(ConfigError, match=r"kafka\.topik"):
        config.load(write_configuration(kept, data))


def test_toml_says_what_it_was_given() -> None:
    data = {
        "text": 'a\t"b"\\ \x7f \U0001f600 \u0001',
        "flag": True,
        "number": 3,
        "ratio": 0.5,
        "list": ["a", 1],
        "table": {"x": "y", "empty": [], "pre_visit.triage": "board", "in": {"command": ["a", "-b"], "n": 1}},
        "tables": [{"a": 1}, {"a": 2, "b": "c", "options": {"x": {"y.z": True}}}],
    }
    assert tomllib.loads(toml(data)) == json.loads(json.dumps(data))


def test_a_reserved_port_is_free_for_nobody_else_until_it_is_released() -> None:
    port = ports.choose()
    reservation = ports.Reservation([port])
    assert not ports.free(port)
    reservation.release()
    reservation.release()
    assert ports.free(port)


def test_no_free_port_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "free", lambda port: False)
    with pytest.raises(Exception, match=r"no free port found on 127\.0\.0\.1"):
        ports.choose()


@pytest.mark.parametrize(
    ("runner", "said"),
    [
        ({"standing": ["in_visit.icu_watch"], "stay": 0}, "stay = 0 lets no run stay"),
        ({"standing": ["a.b", "a.c"], "stay_runs": 1}, "raise stay_runs"),
        ({"standing": ["a.b", "a.c"], "slots": 2}, "every other scenario needs a slot too"),
    ],
)
def test_runs_that_are_to_stand_have_to_fit_among_the_others(kept: Kept, runner: dict[str, Any], said: str) -> None:
    data = configuration(kept, bootstrap="127.0.0.1:1", model=MODEL, sources=[], overrides={"runner": runner})
    with pytest.raises(ConfigError, match=said):
        config.load(write_configuration(kept, data))
