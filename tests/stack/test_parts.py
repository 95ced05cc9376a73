"""What each part is started with: loopback only, no secret on a command line, nothing that logs a patient."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from pipelines.stack import choice, prometheus, statsd, vllm
from pipelines.stack.airflow import Airflow
from pipelines.stack.fhir import Hospital
from pipelines.stack.hapi import Hapi
from pipelines.stack.kafka import ApacheKafka
from pipelines.stack.own import own_parts
from pipelines.stack.part import PROJECT, Part
from pipelines.stack.prometheus import Prometheus
from pipelines.stack.settings import SECRETS, USUAL_PORTS, Kept
from pipelines.stack.stand_in_part import StandIn
from pipelines.stack.statsd import StatsdExporter
from pipelines.stack.supervisor import Program
from pipelines.stack.vllm import Vllm


@pytest.fixture
def parts(kept: Kept) -> Iterable[Part]:
    config = kept.state_dir / "careloom.toml"
    own = own_parts(kept, config, outside=("kafka", "fhir"))
    monitors = (Prometheus(kept, real_model=True), StatsdExporter(kept))
    return (Hospital(kept), Airflow(kept, config), Vllm(kept), StandIn(kept), *monitors, *own)


def _programs(parts: Iterable[Part]) -> dict[str, Program]:
    return {program.name: program for part in parts for program in part.programs()}


def test_every_program_has_a_probe_on_loopback(parts: Iterable[Part]) -> None:
    programs = _programs(parts)
    assert len(programs) == 12
    for program in programs.values():
        assert program.probe is not None
        assert urlsplit(program.probe.target).hostname == "127.0.0.1"


def test_no_secret_stands_on_a_command_line_where_every_user_sees_it(parts: Iterable[Part], kept: Kept) -> None:
    arguments = " ".join(argument for program in _programs(parts).values() for argument in program.argv)
    assert not [name for name in SECRETS if kept.secrets[name] in arguments]


def test_addresses_hold_no_secret(parts: Iterable[Part], kept: Kept) -> None:
    shown = " ".join(address for part in parts for address in part.addresses().values())
    assert not [name for name in SECRETS if kept.secrets[name] in shown]


def test_airflow_finds_the_dags_and_never_the_plugins_folder_that_is_a_package(kept: Kept) -> None:
    airflow = Airflow(kept, kept.state_dir / "careloom.toml")
    env = airflow.programs()[0].env
    assert env["AIRFLOW__CORE__DAGS_FOLDER"] == str(PROJECT / "dags")
    assert Path(env["AIRFLOW__CORE__PLUGINS_FOLDER"]).is_relative_to(kept.state_dir)
    assert env["CARELOOM_CONFIG"] == str(kept.state_dir / "careloom.toml")
    assert all(program.env == env for program in airflow.programs())


def test_airflow_serves_no_logs_on_other_interfaces(kept: Kept) -> None:
    programs = _programs([Airflow(kept, kept.state_dir / "careloom.toml")])
    assert all("--skip-serve-logs" in programs[name].argv for name in ("scheduler", "triggerer"))
    assert programs["api-server"].env["AIRFLOW__API__HOST"] == "127.0.0.1"


def test_no_server_that_sees_patients_logs_its_requests(parts: Iterable[Part]) -> None:
    programs = _programs(parts)
    assert "--no-access-log" in programs["fhir"].argv
    assert {"--no-enable-log-requests", "--disable-uvicorn-access-log"} <= set(programs["vllm"].argv)


def test_the_hospital_listens_on_loopback_behind_a_token_and_keeps_no_bodies(kept: Kept) -> None:
    hospital = Hospital(kept)
    hospital.prepare()
    settings = yaml.safe_load((kept.state_dir / "fhir" / "settings.yaml").read_text())
    assert settings["host"] == "127.0.0.1"
    assert settings["server_auth"] == {"types": ["bearer"], "tokens": [kept.secrets["hospital-server-token"]]}
    assert settings["log_inbound"] is False
    assert settings["simulator"] == {"enabled": False}


def test_prometheus_is_given_the_ports_of_this_stack_for_the_jobs_of_the_one_file(kept: Kept) -> None:
    if prometheus.missing():
        pytest.skip(str(prometheus.missing()))
    Prometheus(kept, real_model=True).prepare()
    folder = kept.state_dir / "prometheus"
    wanted = {
        job["job_name"]: job["file_sd_configs"][0]["files"]
        for job in yaml.safe_load((folder / "prometheus.yml").read_text())["scrape_configs"]
    }
    for name, port in {
        "gateway": "gateway",
        "dispatcher": "dispatcher",
        "exporter": "exporter",
        "vllm": "model",
    }.items():
        assert wanted[name] == [f"targets/{name}.json"]
        targets = json.loads((folder / "targets" / f"{name}.json").read_text())
        assert targets == [{"targets": [f"127.0.0.1:{kept.ports[port]}"]}]


def test_airflow_sends_its_metrics_to_where_the_exporter_listens_and_prometheus_scrapes(kept: Kept) -> None:
    config = kept.state_dir / "careloom.toml"
    env = Airflow(kept, config, metrics=True).environment()
    argv = " ".join(StatsdExporter(kept).programs()[0].argv)
    assert env["AIRFLOW__METRICS__STATSD_HOST"] == "127.0.0.1"
    assert f"--statsd.listen-udp=127.0.0.1:{env['AIRFLOW__METRICS__STATSD_PORT']} --statsd.listen-tcp= " in argv
    if prometheus.missing():
        pytest.skip(str(prometheus.missing()))
    Prometheus(kept, real_model=True, airflow=True).prepare()
    targets = json.loads((kept.state_dir / "prometheus" / "targets" / "airflow.json").read_text())
    assert f"--web.listen-address={targets[0]['targets'][0]}" in argv


def test_without_a_statsd_exporter_airflow_sends_nothing_and_nothing_is_scraped(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statsd, "find", lambda: None)
    chosen = choice.airflow_metrics(kept)
    assert chosen.part is None
    assert "statsd_exporter" in chosen.why
    assert not [key for key in Airflow(kept, kept.state_dir / "c.toml").environment() if "STATSD" in key]
    if prometheus.missing():
        pytest.skip(str(prometheus.missing()))
    Prometheus(kept, real_model=True).prepare()
    assert not (kept.state_dir / "prometheus" / "targets" / "airflow.json").exists()


def test_a_stand_in_is_not_scraped_as_vllm(kept: Kept) -> None:
    if prometheus.missing():
        pytest.skip(str(prometheus.missing()))
    Prometheus(kept, real_model=True).prepare()
    Prometheus(kept, real_model=False).prepare()
    assert not (kept.state_dir / "prometheus" / "targets" / "vllm.json").exists()


def test_kafkas_settings_name_no_other_interface(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.stack import kafka

    monkeypatch.setattr(kafka, "missing", lambda: None)
    monkeypatch.setattr(kafka, "find_jars", lambda: kept.state_dir)
    monkeypatch.setattr(kafka, "run_once", lambda *args, **more: None)
    ApacheKafka(kept).prepare()
    settings = dict(
        line.split("=", 1)
        for line in (kept.state_dir / "kafka" / "server.properties").read_text().splitlines()
        if not line.startswith("#")
    )
    for name in ("listeners", "advertised.listeners"):
        assert all("//127.0.0.1:" in listener for listener in settings[name].split(","))
    assert settings["auto.create.topics.enable"] == "false"


def test_hapi_says_what_it_needs(kept: Kept, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pipelines.errors import StackError

    monkeypatch.setenv("HAPI_HOME", str(tmp_path))
    with pytest.raises(StackError, match=r"HAPI_HOME|Java"):
        Hapi(kept).prepare()


def test_the_usual_ports_differ_from_one_another() -> None:
    assert len(set(USUAL_PORTS.values())) == len(USUAL_PORTS)


def test_the_model_is_called_by_the_name_that_the_configuration_gives_it(kept: Kept) -> None:
    model = Vllm(kept)
    argv = model.programs()[0].argv
    assert argv[argv.index("--served-model-name") + 1] == model.server().name == vllm.NAME
