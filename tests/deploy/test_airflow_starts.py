"""What Airflow needs to start by deploy/: a password file that it may write, a way to its API, probes, a broker.

Each held to what Airflow's source and its official chart's templates do; neither chart nor image was run here.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from pipelines.config import load
from tests.deploy.test_deploy import DEPLOY, KUBERNETES, OURS, airflow_options, airflow_values, services, workload

PASSWORDS = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"
#: Script in deploy/ -> where the image has it.
SCRIPTS = {"airflow-api-server.sh": "/usr/local/bin/airflow-api-server", "entrypoint.sh": "/entrypoint"}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- the password file ------------------------------------------------------------------------------------------------

#: Stands for `airflow`: what its API server does first, and at a login.
_AUTH_MANAGER = """
import json, sys
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
assert sys.argv[1:] == ["api-server"], sys.argv
SimpleAuthManager().init()
print(json.dumps(SimpleAuthManager.get_passwords()))
"""


def start_api_server(folder: Path, mounted: Path) -> subprocess.CompletedProcess[str]:
    """The script of the image, and Airflow's own auth manager instead of the server."""
    (folder / "auth_manager.py").write_text(_AUTH_MANAGER, "utf-8")
    stub = folder / "bin" / "airflow"
    stub.parent.mkdir(exist_ok=True)
    stub.write_text(f'#!/bin/sh\nexec {sys.executable} {folder}/auth_manager.py "$@"\n', "utf-8")
    stub.chmod(0o755)
    env = {
        "PATH": f"{stub.parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        PASSWORDS: str(folder / "run" / "private" / "passwords.json"),
    }
    (folder / "run").mkdir(exist_ok=True)
    command = [DEPLOY / "airflow-api-server.sh", mounted]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def test_the_api_server_starts_with_a_copy_of_its_passwords_that_nobody_else_reads(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted.json"
    mounted.write_text('{"admin": "first"}', "utf-8")
    mounted.chmod(0o440)
    copy = tmp_path / "run" / "private" / "passwords.json"

    done = start_api_server(tmp_path, mounted)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"admin": "first"}
    assert "Password for user" not in done.stdout + done.stderr, "Airflow made one itself and printed it"
    assert (mode(copy), mode(copy.parent), mode(mounted)) == (0o600, 0o700, 0o440)

    # a container that is started again in its pod has the copy still, and takes the changed Secret
    mounted.chmod(0o640)
    mounted.write_text('{"admin": "second"}', "utf-8")
    done = start_api_server(tmp_path, mounted)
    assert json.loads(done.stdout.splitlines()[-1]) == {"admin": "second"}, done.stderr
    assert mode(copy) == 0o600


def test_the_api_server_does_not_start_with_passwords_of_its_own_making(tmp_path: Path) -> None:
    done = start_api_server(tmp_path, tmp_path / "not-mounted.json")
    assert done.returncode != 0
    assert "not-mounted.json" in done.stderr
    assert not (tmp_path / "run" / "private" / "passwords.json").exists()


def within(path: str, folders: set[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


def test_airflow_is_told_of_a_password_file_that_may_be_written_in_compose() -> None:
    server, told = services()["airflow-api-server"], airflow_options()["compose"][PASSWORDS]
    [mounted] = server["command"][1:]
    assert server["command"][0] == Path(SCRIPTS["airflow-api-server.sh"]).name
    assert mounted in {f"/run/secrets/{name}" for name in server["secrets"]}
    assert within(told, set(server["tmpfs"]))
    assert not within(told, {"/run/secrets"})
    # nobody else is given it
    assert [name for name, service in services().items() if "secrets" in service] == ["airflow-api-server"]


def test_airflow_is_told_of_a_password_file_that_may_be_written_in_the_chart() -> None:
    values, told = airflow_values(), airflow_options()["chart"][PASSWORDS]
    server = values["apiServer"]
    kinds = {volume["name"]: volume for volume in (*values["volumes"], *server["extraVolumes"])}
    mounts = [*values["volumeMounts"], *server["extraVolumeMounts"]]
    assert {mount["name"] for mount in mounts} == set(kinds)
    secret = {mount["mountPath"] for mount in mounts if "secret" in kinds[mount["name"]]}
    writable = {
        mount["mountPath"] for mount in mounts if "emptyDir" in kinds[mount["name"]] and "readOnly" not in mount
    }
    command, mounted = server["args"]
    assert command == Path(SCRIPTS["airflow-api-server.sh"]).name
    assert within(mounted, secret)
    assert within(told, writable)
    assert not within(told, secret)
    # what every part of Airflow is given is careloom's configuration, and no password of the UI
    assert [volume["name"] for volume in values["volumes"]] == ["careloom-config"]


def test_the_image_has_the_scripts_where_they_are_called_and_as_programs() -> None:
    copies = re.findall(
        r"^COPY --chmod=0755 deploy/(\S+\.sh) (\S+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE
    )
    assert dict(copies) == SCRIPTS
    assert all(mode(DEPLOY / name) & 0o111 for name in SCRIPTS)


def test_every_named_volume_of_compose_is_mounted_over_a_folder_of_the_image() -> None:
    """Docker makes it root's otherwise, and uid 50000 writes no log."""
    [made] = re.findall(r"^RUN mkdir -p (.+?)(?: \\)?$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    for name, service in services().items():
        if str(service["image"]).startswith("careloom:"):
            for volume in service["volumes"]:
                source, target, *_ = volume.split(":")
                assert source.startswith(".") or target in made.split(), (name, volume)


# --- who may speak to its API -----------------------------------------------------------------------------------------

#: The labels that the chart gives its pods, for the release that airflow-values.yaml is installed as.
CHART = {name: {"tier": "airflow", "component": name, "release": "airflow"} for name in ("worker", "redis", "statsd")}


def may_reach_the_api(labels: Mapping[str, str]) -> bool:
    """By the policy that the chart makes of the values: nobody without `from`, everybody by an empty selector."""
    values = airflow_values()
    if not values["networkPolicies"]["enabled"]:
        return True
    peers = values["apiServer"].get("networkPolicy", {}).get("ingress", {}).get("from", ())
    # of the same namespace all of them: a peer of another kind than these would need a test of its own
    assert all(set(peer) == {"podSelector"} for peer in peers)
    return any(peer["podSelector"]["matchLabels"].items() <= labels.items() for peer in peers)


def test_workers_and_dispatchers_reach_the_api_server_and_no_other_pod_does() -> None:
    ours = {name: workload(name)["spec"]["template"]["metadata"]["labels"] for name in OURS}
    reach = {name for name, labels in (CHART | ours).items() if may_reach_the_api(labels)}
    assert reach == {"worker", "dispatcher"}


@pytest.mark.parametrize("way", ["compose", "kubernetes"])
def test_careloom_asks_airflow_where_it_listens(way: str) -> None:
    """The service of the chart is called after the release and the component, as that of compose is."""
    assert load(DEPLOY / way / "careloom.example.toml").airflow.url == "http://airflow-api-server:8080"
    assert "airflow-api-server" in services()
    head = (KUBERNETES / "airflow-values.yaml").read_text("utf-8")
    assert "upgrade --install airflow apache-airflow/airflow " in head


# --- probes -----------------------------------------------------------------------------------------------------------

_CHECK = "CONNECTION_CHECK_MAX_COUNT=0 AIRFLOW__LOGGING__LOGGING_LEVEL=ERROR exec /entrypoint \\\nairflow jobs check "
#: Component -> what the chart's probes give to `sh -c` where its values do not say otherwise (_helpers.yaml and
#: worker-deployment.yaml of the 1.x charts). The API server's are HTTP; Redis and statsd have images of their own.
PROBES = {
    "scheduler": f"{_CHECK}--job-type SchedulerJob --local",
    "dagProcessor": f"{_CHECK}--local --job-type DagProcessorJob",
    "triggerer": f"{_CHECK}--job-type TriggererJob --local",
    "workers": (
        "CONNECTION_CHECK_MAX_COUNT=0 exec /entrypoint python -m celery "
        "--app airflow.providers.celery.executors.celery_executor.app inspect ping -d celery@$(hostname)"
    ),
}
#: Stands for `airflow` and `python`: says what it was asked, the former after Airflow's own parser.
_ASKED = """
import json, os, sys
name, arguments = os.path.basename(sys.argv[1]), sys.argv[2:]
if name == "airflow":
    from airflow.cli.cli_parser import get_parser
    parsed = get_parser().parse_args(arguments)
    arguments = [parsed.subcommand, parsed.job_type, parsed.local]
print(json.dumps([name, *arguments, os.environ.get("AIRFLOW__LOGGING__LOGGING_LEVEL")]))
"""


@pytest.mark.parametrize("component", PROBES)
def test_what_the_probes_of_the_chart_call_is_in_the_image(component: str, tmp_path: Path) -> None:
    """Of every component, on or off: the next to turn one on finds its probe working."""
    (tmp_path / "asked.py").write_text(_ASKED, "utf-8")
    for name in ("airflow", "python"):
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/asked.py "$0" "$@"\n', "utf-8")
        (tmp_path / name).chmod(0o755)
    [script] = [name for name, place in SCRIPTS.items() if place == "/entrypoint"]
    command = PROBES[component].replace("/entrypoint", str(DEPLOY / script))
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    name, *asked = json.loads(done.stdout.splitlines()[-1])
    if component == "workers":
        app = "airflow.providers.celery.executors.celery_executor.app"
        ping = ["inspect", "ping", "-d", f"celery@{os.uname().nodename}"]
        assert (name, asked) == ("python", ["-m", "celery", "--app", app, *ping, None])
    else:
        job = {"scheduler": "SchedulerJob", "dagProcessor": "DagProcessorJob", "triggerer": "TriggererJob"}[component]
        assert (name, asked) == ("airflow", ["check", job, True, "ERROR"])


def test_every_component_that_the_chart_starts_is_one_whose_probes_were_looked_at() -> None:
    """A command of ours instead of the chart's, or a sidecar of the official image, would need a look of its own."""
    values = airflow_values()
    ours = {name for name in PROBES if values.get(name, {}).get("enabled", True)}
    assert ours == {"scheduler", "dagProcessor", "workers"}
    for name in ours:
        assert not {"livenessProbe", "startupProbe", "command", "args"} & set(values[name]), name
        # its sidecar runs /clean-logs, which no image but the official one has
        assert values[name]["logGroomerSidecar"] == {"enabled": False}, name
    for name in ("flower", "cleanup", "databaseCleanup", "pgbouncer"):
        assert not values.get(name, {}).get("enabled", False), name


# --- secrets that are made beforehand ---------------------------------------------------------------------------------


def head_of_values() -> str:
    lines = (KUBERNETES / "airflow-values.yaml").read_text("utf-8").splitlines()
    return "".join(line.removeprefix("#").strip() + "\n" for line in lines[: lines.index("executor: CeleryExecutor")])


def named_secrets(values: Any) -> Iterator[str]:
    """Every Secret that the values name, wherever they do."""
    if isinstance(values, dict):
        for key, value in values.items():
            if isinstance(value, str) and key.lower().endswith("secretname"):
                yield value
            else:
                yield from named_secrets(value)
    elif isinstance(values, list):
        for value in values:
            yield from named_secrets(value)


def test_every_secret_of_the_values_is_one_that_their_head_has_made() -> None:
    head = head_of_values().replace("\n", " ")
    named = set(named_secrets(airflow_values()))
    assert len(named) == 8
    for name in named - {"careloom-config"}:
        assert re.search(rf"\b{name} \[[\w.-]+\]", head), name


def test_the_broker_is_asked_with_the_password_that_redis_was_given(tmp_path: Path) -> None:
    """The commands of the values' head are run, with a kubectl that writes down what it is given."""
    values = airflow_values()
    assert values["redis"]["enabled"]
    assert "password" not in values["redis"], "the chart refuses both"
    commands = re.search(r"^password=.*\n(?:(?:kubectl|--from).*\n)+", head_of_values(), re.MULTILINE)
    assert commands is not None
    (tmp_path / "kubectl").write_text(f'#!/bin/sh\nprintf "%s\\n" "$6" "$7" >>{tmp_path}/given\n', "utf-8")
    (tmp_path / "kubectl").chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["sh", "-euc", commands[0]], env={"PATH": path}, check=True, timeout=60)

    given = (tmp_path / "given").read_text("utf-8").splitlines()
    made = dict(zip(given[::2], given[1::2], strict=True))
    password = made[values["redis"]["passwordSecretName"]].removeprefix("--from-literal=password=")
    url = urlsplit(made[values["data"]["brokerUrlSecretName"]].removeprefix("--from-literal=connection="))
    # nothing that a URL writes otherwise, and no -- in front, which redis-server takes for an option
    assert re.fullmatch(r"[0-9a-f]{64}", password)
    assert (url.scheme, unquote(url.password or "")) == ("redis", password)
    # the chart's service, of the release that the head installs
    assert (url.hostname, url.port) == ("airflow-redis", 6379)
