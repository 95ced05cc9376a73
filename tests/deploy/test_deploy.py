"""deploy/ passes its linters, and says the same as the code: modules, ports, probes, names, settings, options."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pipelines.config import Config, load
from pipelines.gateway.endpoints import Endpoints
from pipelines.kafka.topics import wanted_settings
from pipelines.stack.airflow import POOL
from pipelines.stack.statsd import MAPPING, airflow_settings
from tests.scale_out.parts import celery_settings

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
KUBERNETES = DEPLOY / "kubernetes"
OURS = ("gateway", "dispatcher", "exporter")
#: Longer than this no task runs (execution_timeout in dags/scenario_dags.py).
LONGEST_TASK = 30 * 60


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A linter of this environment."""
    command = [str(Path(sys.executable).parent / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=120)


def documents(file: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(file.read_text("utf-8")) if one]


def manifests() -> Iterator[dict[str, Any]]:
    """Everything that kustomize would apply."""
    [kustomization] = documents(KUBERNETES / "kustomization.yaml")
    for name in kustomization["resources"]:
        yield from documents(KUBERNETES / name)


def workload(name: str) -> dict[str, Any]:
    [found] = [one for one in manifests() if one["kind"] in ("Deployment", "StatefulSet") and name in (name_of(one),)]
    return found


def name_of(manifest: Mapping[str, Any]) -> str:
    return str(manifest["metadata"]["name"])


def services() -> Mapping[str, Any]:
    return documents(COMPOSE)[0]["services"]


def airflow_values() -> dict[str, Any]:
    [values] = documents(KUBERNETES / "airflow-values.yaml")
    return values


def airflow_options() -> dict[str, dict[str, str]]:
    """File -> what it sets of Airflow."""
    compose = services()["airflow-worker"]["environment"]
    chart = {one["name"]: one["value"] for one in airflow_values()["env"]}
    return {
        name: {key: str(value) for key, value in found.items() if key.startswith("AIRFLOW__")}
        for name, found in (("compose", compose), ("chart", chart))
    }


@pytest.fixture(params=["compose", "kubernetes"])
def config(request: pytest.FixtureRequest) -> Config:
    """The example configuration of each way, as careloom reads it."""
    return load(DEPLOY / request.param / "careloom.example.toml")


# --- linters ----------------------------------------------------------------------------------------------------------


def test_every_yaml_file_passes_yamllint() -> None:
    done = tool("yamllint", "--strict", "-c", DEPLOY / ".yamllint", DEPLOY)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_passes_hadolint() -> None:
    done = tool("hadolint", DEPLOY / "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_the_compose_file_is_what_the_compose_specification_allows() -> None:
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)
    assert done.returncode == 0, done.stdout


def test_every_manifest_is_what_kubernetes_allows() -> None:
    checked = 0
    for manifest in manifests():
        if "strimzi.io" not in manifest["apiVersion"]:
            kubernetes_validate.validate(manifest, "1.34", strict=True)
            checked += 1
    assert checked >= 11


def test_shell_scripts_parse() -> None:
    for script in DEPLOY.rglob("*.sh"):
        assert subprocess.run(["bash", "-n", script], timeout=30).returncode == 0


def test_kustomize_renders_everything_into_one_namespace() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not here")
    command = ["kubectl", "kustomize", KUBERNETES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rendered = [one for one in yaml.safe_load_all(done.stdout) if one]
    assert {one["metadata"].get("namespace") for one in rendered} == {"careloom"}
    assert len(rendered) == len(list(manifests()))


def test_each_file_says_what_was_run_and_what_was_only_checked() -> None:
    for file in DEPLOY.rglob("*"):
        if file.suffix in (".yaml", ".toml", ".env", ".sh") or file.name == "Dockerfile":
            head = "\n".join(line for line in file.read_text("utf-8").splitlines()[:20] if line.startswith("#"))
            assert re.search("Run here|[Oo]nly checked|Checked by", head), file.name


# --- held to the code -------------------------------------------------------------------------------------------------


def test_the_example_configurations_are_read_and_reach_beyond_loopback(config: Config) -> None:
    assert {config.gateway.host, config.exporter.host, config.dispatcher.metrics_host} == {"0.0.0.0"}


def test_every_module_that_is_started_exists() -> None:
    commands = [services()[name].get("command") for name in services()]
    for manifest in manifests():
        pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
        commands += [one["command"] for one in (*pod.get("initContainers", ()), *pod.get("containers", ()))]
    modules = {command[2] for command in commands if command and command[:2] == ["python", "-m"]}
    assert modules == {"pipelines.ledger", "pipelines.gateway", "pipelines.dispatcher", "monitoring.exporter"}
    for module in modules:
        found = importlib.util.find_spec(module)
        assert found is not None
        runnable = importlib.util.find_spec(f"{module}.__main__") if found.submodule_search_locations else found
        assert runnable is not None, module


@pytest.mark.parametrize("name", OURS)
def test_ports_and_probes_are_those_of_the_process(name: str) -> None:
    config = load(KUBERNETES / "careloom.example.toml")
    ports = {
        "gateway": config.gateway.port,
        "dispatcher": config.dispatcher.metrics_port,
        "exporter": config.exporter.port,
    }
    [container] = workload(name)["spec"]["template"]["spec"]["containers"]
    [port] = container["ports"]
    assert port["containerPort"] == ports[name]
    [service] = [one for one in manifests() if one["kind"] == "Service" and name_of(one) == name]
    assert [one["port"] for one in service["spec"]["ports"]] == [ports[name]]
    assert service["spec"]["selector"].items() <= workload(name)["spec"]["template"]["metadata"]["labels"].items()
    for probe in ("livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["port"] == port["name"]
        assert asked["path"] in _answered(name)


def _answered(name: str) -> set[str]:
    """The paths that a process answers a GET to without asking who it is."""
    if name == "gateway":
        return {"/health", "/ready", "/metrics"} & set(re.findall(r'Route\("(/\w+)"', _source(Endpoints)))
    if name == "exporter":
        return {"/health", "/metrics"} & set(re.findall(r'"(/\w+)"', (PROJECT / "monitoring/exporter.py").read_text()))
    return {"/metrics"}  # prometheus-client's own server answers every path with them


def _source(one: type) -> str:
    import inspect

    return inspect.getsource(one)


def test_the_configuration_is_mounted_where_the_image_looks_for_it() -> None:
    looks = re.search(r"CARELOOM_CONFIG=(\S+)", (DEPLOY / "Dockerfile").read_text("utf-8"))
    assert looks is not None
    for name in OURS:
        pod = workload(name)["spec"]["template"]["spec"]
        for container in (*pod["initContainers"], *pod["containers"]):
            assert str(Path(looks[1]).parent) in [mount["mountPath"] for mount in container["volumeMounts"]]
    for name in ("gateway", "dispatcher-1", "exporter", "airflow-worker"):
        assert any(volume.split(":")[1] == looks[1] for volume in services()[name]["volumes"] if "toml" in volume)
    assert str(Path(looks[1]).parent) in [mount["mountPath"] for mount in airflow_values()["volumeMounts"]]


def test_dispatchers_are_two_and_have_names_of_their_own() -> None:
    assert workload("dispatcher")["kind"] == "StatefulSet"
    assert workload("dispatcher")["spec"]["replicas"] == 2
    names = [services()[name]["hostname"] for name in ("dispatcher-1", "dispatcher-2")]
    assert len(set(names)) == 2
    scraped = json.loads((DEPLOY / "compose/targets/dispatcher.json").read_text())[0]["targets"]
    assert scraped == [f"{name}:8801" for name in names]


def test_compose_scrapes_what_it_starts_and_what_a_profile_starts_by_a_step_that_is_written_down() -> None:
    targets = DEPLOY / "compose" / "targets"
    scraped = {job: (targets / f"{job}.json") for job in ("gateway", "dispatcher", "exporter")}
    tracked = {Path(name).name for name in _tracked(targets)}
    assert {file.name for file in scraped.values()} | {"vllm.example.json"} == tracked
    for name in sorted(tracked):
        for target in json.loads((targets / name).read_text("utf-8"))[0]["targets"]:
            service = services()[target.split(":")[0]]
            assert bool(service.get("profiles")) == name.endswith(".example.json"), target
    jobs = documents(PROJECT / "monitoring" / "prometheus.yml")[0]["scrape_configs"]
    read = {name for job in jobs for one in job["file_sd_configs"] for name in one["files"]}
    assert "targets/vllm.json" in read
    assert "targets/vllm.example.json" not in read
    assert "cp targets/vllm.example.json targets/vllm.json" in COMPOSE.read_text("utf-8")


def _tracked(folder: Path) -> list[str]:
    done = subprocess.run(["git", "ls-files", folder], cwd=PROJECT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_topic_is_made_as_careloom_would_make_it() -> None:
    config = load(KUBERNETES / "careloom.example.toml")
    [topic] = [one for one in manifests() if one["kind"] == "KafkaTopic"]
    assert name_of(topic) == config.kafka.topic
    assert topic["spec"]["partitions"] == config.kafka.partitions
    assert topic["spec"]["replicas"] == config.kafka.replication
    assert {key: str(value) for key, value in topic["spec"]["config"].items()} == wanted_settings(config)


def test_the_image_holds_what_the_wheel_holds() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text("utf-8")
    packages = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]
    copied = re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", dockerfile, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert set(packages["wheel"]["packages"]) | {"dags"} <= sources
    assert all((PROJECT / source).exists() for source in sources)


def test_what_compose_mounts_from_here_is_here() -> None:
    made_by_hand = {"./careloom.toml"}
    for name, service in services().items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith(".") and source not in made_by_hand:
                assert (COMPOSE.parent / source).exists(), (name, source)


@pytest.mark.parametrize("file", ["compose", "chart"])
def test_every_option_of_airflow_is_one_that_it_has(file: str) -> None:
    known = subprocess.run(
        [sys.executable, "-c", _KNOWN_OPTIONS], capture_output=True, text=True, timeout=120, check=True
    )
    options = set(json.loads(known.stdout.splitlines()[-1])) | set(celery_settings(1))
    assert set(airflow_options()[file]) - options == set()


_KNOWN_OPTIONS = """
import json
from airflow.configuration import conf
print(json.dumps([
    f"AIRFLOW__{section.upper()}__{key.upper()}"
    for section, about in conf.configuration_description.items() for key in about["options"]
]))
"""


@pytest.mark.parametrize("file", ["compose", "chart"])
def test_workers_are_warmed_by_a_class_that_is_there(file: str) -> None:
    options = airflow_options()[file]
    [coordinator] = json.loads(options["AIRFLOW__SDK__COORDINATORS"]).values()
    module, name = coordinator["classpath"].split(".")
    assert f"class {name}(" in (PROJECT / "dags" / f"{module}.py").read_text("utf-8")
    assert set(json.loads(options["AIRFLOW__SDK__QUEUE_TO_COORDINATOR"])) == {"default"}


@pytest.mark.parametrize("file", ["compose", "chart"])
def test_no_task_is_given_to_a_second_worker_while_it_runs(file: str) -> None:
    wait = airflow_options()[file]["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"]
    assert 'execution_timeout": timedelta(minutes=30)' in (PROJECT / "dags/scenario_dags.py").read_text("utf-8")
    assert int(wait) > LONGEST_TASK


def test_airflows_metrics_are_sent_as_the_development_stack_sends_them() -> None:
    """Host, port and prefix are the chart's own, with the same prefix."""
    by_chart = {"STATSD_ON", "STATSD_HOST", "STATSD_PORT", "STATSD_PREFIX"}
    wanted = {f"AIRFLOW__{k}": v for k, v in airflow_settings(9125).items() if k.split("__")[1] not in by_chart}
    assert {k: v for k, v in airflow_options()["chart"].items() if k.startswith("AIRFLOW__METRICS__")} == wanted
    assert airflow_values()["statsd"]["enabled"]
    assert "airflow-statsd-values.yaml" in (KUBERNETES / "airflow-values.yaml").read_text("utf-8")
    image = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert any(one.startswith("statsd") for one in image["scale-out"]), "the image's Airflow could send nothing"


def test_the_charts_statsd_has_our_mapping_with_its_defaults_written_out() -> None:
    [values] = documents(KUBERNETES / "airflow-statsd-values.yaml")
    ours = yaml.safe_load(MAPPING.read_text("utf-8"))
    theirs = values["statsd"]["overrideMappings"]
    assert [mapping["name"] for mapping in theirs] == [mapping["name"] for mapping in ours["mappings"]]
    for one, other in zip(ours["mappings"], theirs, strict=True):
        assert one.items() <= other.items()
        assert {key: other[key] for key in other.keys() - one.keys()}.items() <= ours["defaults"].items()


def test_prometheus_may_scrape_the_charts_statsd_from_where_it_scrapes_careloom() -> None:
    [ours] = [
        one for one in manifests() if one["kind"] == "NetworkPolicy" and name_of(one) == "metrics-from-prometheus"
    ]
    assert airflow_values()["statsd"]["extraNetworkPolicies"] == ours["spec"]["ingress"][0]["from"]


def test_the_model_pool_is_made_under_the_name_that_dags_use() -> None:
    for command in (services()["airflow-schema"]["command"], airflow_values()["migrateDatabaseJob"]["args"]):
        assert f"airflow pools set {POOL} " in command[-1]


def test_no_secret_is_written_down() -> None:
    assert all(manifest["kind"] != "Secret" for manifest in manifests())
    for file in (*DEPLOY.rglob("*.toml"), *DEPLOY.rglob("*.env")):
        for line in file.read_text("utf-8").splitlines():
            if re.match(r"\s*\w*(password|token|salt|secret|fernet_key)\w*\s*=", line, re.IGNORECASE):
                assert "CHANGE-ME" in line, (file.name, line)
