"""Stack, with its small real parts: starts what is asked for, refuses a second, leaves nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from pipelines import config
from pipelines.errors import ConfigError, StackError
from pipelines.stack import kafka, processes, record, vllm
from pipelines.stack.environment import Stack
from pipelines.stack.settings import ModelServer
from pipelines.stack.status import status

pytestmark = pytest.mark.stack


def _small(folder: Path) -> Stack:
    return Stack(folder, broker="tansu", model="stand-in")


def test_parts_start_with_what_they_need_come_back_after_kill_9_and_leave_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    with Stack(tmp_path, broker="tansu", model="stand-in", say=said.append) as stack:
        stack.start(["ledger"])
        assert set(stack.programs) == {"postgres"}
        stack.start(["ledger", "model", "fhir"])
        stack_id = (record.read(tmp_path) or pytest.fail("no record")).stack_id

        seen = status(tmp_path)
        assert (seen.state, set(seen.programs)) == ("up", {"postgres", "stand-in", "fhir"})
        assert not [name for name, one in seen.programs.items() if one.problem]
        assert seen.work == {}
        assert seen.unaccounted == 0

        stack.kill("stand-in")
        stack.wait_healthy("stand-in")
        assert stack.restarts("stand-in") == 1

        stack.take_down("stand-in")
        assert "stand-in" not in stack.programs
        assert stack.out == ("stand-in",)
        assert status(tmp_path).programs["stand-in"].problem == "not running"  # it is not forgotten
        stack.bring_back("stand-in")
        assert stack.pids("stand-in")
        assert status(tmp_path).state == "up"
    assert processes.marked(stack_id) == []
    assert record.read(tmp_path) is None
    assert [line.split(" ready")[0] for line in said] == ["postgres", "ledger", *(x.split()[0] for x in said[2:])]


def test_the_hospital_refuses_who_has_no_token_and_takes_who_has(tmp_path: Path) -> None:
    with _small(tmp_path) as stack:
        stack.start(["fhir"])
        source = config.load(stack.config).source("hospital")
        assert source.server_token is not None
        patient = {"resourceType": "Patient", "active": True}
        url = f"{source.base_url}/Patient"
        token = {"Authorization": f"Bearer {source.server_token.get_secret_value()}"}
        assert httpx.post(url, json=patient).status_code == 401
        assert httpx.post(url, json=patient, headers=token).status_code == 201
        stack.kill("fhir")
        stack.wait_healthy("fhir")
        assert httpx.get(url, headers=token).json()["total"] == 1


def test_a_second_stack_in_the_folder_is_refused_while_the_first_goes_on(tmp_path: Path) -> None:
    with _small(tmp_path) as stack:
        stack.start(["model"])
        with pytest.raises(StackError, match="runs a stack in"):
            _small(tmp_path)
        stack.wait_healthy()
    _small(tmp_path).stop()


def test_when_one_part_does_not_come_up_everything_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = _small(tmp_path)

    def broken() -> None:
        raise StackError("the hospital is on fire")

    monkeypatch.setattr(stack._parts["fhir"], "prepare", broken)
    with pytest.raises(StackError, match="on fire"):
        stack.start(["model", "fhir"])
    assert stack.programs == ()
    assert not record.held(tmp_path)


def test_two_threads_may_start_parts_that_overlap(tmp_path: Path) -> None:
    with _small(tmp_path) as stack, ThreadPoolExecutor() as pool:
        for one in [pool.submit(stack.start, parts) for parts in (["model", "postgres"], ["ledger"], ["model"])]:
            one.result()
        assert sorted(stack.programs) == ["postgres", "stand-in"]


def test_a_part_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with _small(tmp_path) as stack, pytest.raises(StackError, match=r"no part named 'kafkaa'; there are .*kafka"):
        stack.start(["kafkaa"])


def test_what_is_chosen_and_why_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "missing", lambda: "no Java here")
    monkeypatch.setattr(vllm, "missing", lambda: "not set up")
    with Stack(tmp_path) as stack:
        assert (stack.broker.name, stack.model.server.stand_in) == ("tansu", True)
        assert "no Java here" in stack.broker.why
        assert "not set up" in stack.model.why
        assert config.load(stack.config).model.stand_in
    with pytest.raises(StackError, match="Apache Kafka was asked for: no Java here"):
        Stack(tmp_path, broker="apache")
    with pytest.raises(StackError, match="vLLM was asked for: not set up"):
        Stack(tmp_path, model="vllm")


def test_servers_that_run_elsewhere_are_only_written_into_the_configuration(tmp_path: Path) -> None:
    model = ModelServer("http://127.0.0.1:1/v1", "qwen", "3")
    elsewhere = "127.0.0.1:1,127.0.0.1:2"
    with Stack(tmp_path, broker=elsewhere, model=model, fhir="http://127.0.0.1:3/fhir") as stack:
        assert not {"kafka", "model", "fhir"} & set(stack.parts)
        read = config.load(stack.config)
    assert (read.kafka.bootstrap, read.model.name, read.sources[0].base_url) == (
        elsewhere,
        "qwen",
        "http://127.0.0.1:3/fhir",
    )


@pytest.mark.parametrize("asked", [{"broker": "rabbit"}, {"model": "gpt"}])
def test_a_word_that_is_not_known_is_a_wrong_call_and_leaves_the_folder_free(
    tmp_path: Path, asked: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match="neither"):
        Stack(tmp_path, **asked)  # type: ignore[arg-type]
    assert not record.held(tmp_path)
