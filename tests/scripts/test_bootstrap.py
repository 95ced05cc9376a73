"""The set-up does what is due, once, and says what it could not do."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bootstrap"


@pytest.fixture
def bootstrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module, working in a folder of its own."""
    loader = SourceFileLoader("bootstrap_script", str(SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    loader.exec_module(module)
    for where in (module, sys.modules["bootstrap_steps"]):
        monkeypatch.setattr(where, "HOME", tmp_path / ".careloom")
        monkeypatch.setattr(where, "ROOT", tmp_path)
    return module


def test_a_step_is_done_once_and_again_when_an_input_changes(bootstrap: ModuleType, tmp_path: Path) -> None:
    pins, made, done = tmp_path / "pins.txt", tmp_path / "made", []
    pins.write_text("a==1")

    def work() -> None:
        done.append(pins.read_text())
        made.touch()

    step = bootstrap.Step("base", "something", work, made, (pins, "v1"))
    assert [step.do(), step.do()] == [True, True]
    assert done == ["a==1"]
    pins.write_text("a==2")
    assert step.do()
    made.unlink()
    assert step.do()
    assert done == ["a==1", "a==2", "a==2"]


def test_what_failed_is_kept_for_the_doctor_until_it_is_done(bootstrap: ModuleType, tmp_path: Path) -> None:
    made, reasons = tmp_path / "made", ["no network"]

    def work() -> None:
        if reasons:
            raise bootstrap.StepError(reasons.pop())
        made.touch()

    step = bootstrap.Step("vllm", "something", work, made, ())
    assert not step.do()
    assert step.excuse.read_text() == "no network\n"
    assert step.do()
    assert not step.excuse.exists()


def test_a_step_that_this_machine_cannot_have_is_not_tried(bootstrap: ModuleType, tmp_path: Path) -> None:
    def work() -> None:
        raise AssertionError

    step = bootstrap.Step("vllm", "x", work, tmp_path / "made", (), why_not=lambda: "this is a toaster")
    assert not step.do()
    assert "toaster" in step.excuse.read_text()


def test_a_failing_command_quotes_the_end_of_its_output(bootstrap: ModuleType) -> None:
    with pytest.raises(bootstrap.StepError, match=r"(?s)sh ended with 3; .*bootstrap-base\.log.*so sorry"):
        bootstrap.run("base", "sh", "-c", "echo so sorry; exit 3")
    with pytest.raises(bootstrap.StepError, match="/no/such/tool cannot be run"):
        bootstrap.run("base", "/no/such/tool")


def test_settings_of_pip_are_read_however_they_were_made(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = (
        ":env:.find-links='/wheels'\nglobal.find-links='/wheels'\n"
        "install.find-links='/more\\n/and-more'\nglobal.index-url='https://mirror.example/simple'\n"
    )
    answer = subprocess.CompletedProcess([], 0, stdout=listed)
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *args, **more: answer)
    settings = bootstrap.pip_settings()
    assert settings["find-links"] == ["/wheels", "/more", "/and-more"]
    assert settings["index-url"] == ["https://mirror.example/simple"]


def test_packages_are_left_alone_when_asked_and_maven_is_for_kafka_only(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bootstrap.shutil, "which", lambda command: None)
    monkeypatch.setenv("CARELOOM_NO_APT", "1")
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    names = ["default-jre-headless", "prometheus", "prometheus-alertmanager", "maven"]
    assert bootstrap.missing_packages() == names
    assert bootstrap.no_apt() == f"CARELOOM_NO_APT is set; not installed: {' '.join(names)}"
    (tmp_path / "kafka.jar").touch()
    assert bootstrap.missing_packages() == names[:3]


def test_another_python_is_refused_before_anything_is_made(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 2))
    assert bootstrap.main() == 2
    assert "needs Python 3.11 or 3.12" in capsys.readouterr().err
    assert not (tmp_path / ".careloom").exists()


def test_the_weights_and_vllm_are_pinned_to_names_and_versions_only() -> None:
    for name in ("constraints.txt", "deploy/vllm-cpu-constraints.txt", "deploy/kserve-constraints.txt"):
        lines = (SCRIPT.parents[1] / name).read_text("utf-8").splitlines()
        pins = [line for line in lines if line and not line.startswith("#")]
        assert pins
        assert not [line for line in pins if "==" not in line or "/" in line or "@" in line]
