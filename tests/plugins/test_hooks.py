"""Every hook: its example runs, what it brings is held to its rules, and one bad thing takes no other down."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import pytest

from plugins import manager
from plugins.counters import MOST_SERIES, Counter
from plugins.guarding import Answered, Guard, Verdict
from plugins.hookspecs import SPECIFICATIONS, Settings, hookimpl
from plugins.lifecycle import Failed, Inferred, Started
from plugins.manager import Loaded, installed_plugins, load
from plugins.model_backend import ChatRequest
from plugins.post_visit.follow_up import FollowUp

HOOKS = {name: hook for spec in SPECIFICATIONS for name, hook in vars(spec).items() if name.startswith("careloom_")}
WORK = Started("post_visit.x", "1", "post_visit", 2)
TOLD = Inferred(WORK, ("m",), 1, 1, 0.1, (), (), 0)


def example(hook: str) -> str:
    """The example in a hook's docstring."""
    document = inspect.getdoc(HOOKS[hook])
    assert document is not None
    return textwrap.dedent(document.partition("Example:\n")[2])


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`install(theirs=module)` makes these the only installed entry points, and loads them."""

    def make(**modules: types.ModuleType) -> Loaded:
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, f"fake_{name}", module)
        points = [importlib.metadata.EntryPoint(name, f"fake_{name}", manager.PROJECT) for name in modules]
        monkeypatch.setattr(manager, "entry_points", lambda **q: importlib.metadata.EntryPoints(points).select(**q))
        return load(list(modules), built_in=(), settings=lambda name: Settings(Path(), "en", {"phone": name}))

    return make


def module(**hooks: Any) -> types.ModuleType:
    """A plugin that returns these from its hooks."""
    made = types.ModuleType("fake")
    for name, returned in hooks.items():
        arguments = inspect.signature(HOOKS[f"careloom_{name}"]).parameters.keys() - {"self"}
        space: dict[str, Any] = {"returned": returned}
        exec(f"def hook({', '.join(arguments)}): return returned", space)
        setattr(made, f"careloom_{name}", hookimpl(space["hook"]))
    return made


@pytest.mark.parametrize("hook", HOOKS)
def test_the_example_of_every_hook_loads_and_brings_something(install: Any, hook: str) -> None:
    made = types.ModuleType("shown")
    exec(example(hook), vars(made))
    loaded = install(shown=made)
    assert loaded.refused == ()
    (info,) = loaded.plugins
    assert info.brings


def shown(install: Any, hook: str) -> Loaded:
    made = types.ModuleType("shown")
    exec(example(hook), vars(made))
    loaded: Loaded = install(shown=made)
    return loaded


def test_the_backend_of_the_example_answers(install: Any) -> None:
    loaded = shown(install, "careloom_model_backends")
    backend = loaded.backends["parrot"](types.SimpleNamespace(options={"says": "{}"}))
    answer = asyncio.run(backend.chat(ChatRequest([], {}, 1, 0.0, 1.0, "r")))
    assert answer.text == "{}"


def test_the_knowledge_of_the_example_is_told_its_own_settings_and_finds_its_passage(install: Any) -> None:
    (source,) = shown(install, "careloom_knowledge").knowledge
    (passage,) = source.search("the telephone?", locale="en", cap=3)
    assert "shown" in passage.text
    assert source.search("anything else", locale="en", cap=3) == []


def test_knowledge_is_not_opened_where_no_settings_are_given() -> None:
    assert load(built_in=()).knowledge == ()


@pytest.mark.parametrize(
    ("hook", "call", "name"),
    [
        ("careloom_before_infer", lambda hooks: hooks.before_infer(WORK), "careloom_plugin_shown_second_tries_total"),
        ("careloom_after_infer", lambda hooks: hooks.after_infer(TOLD), "careloom_plugin_shown_empty_results_total"),
        (
            "careloom_on_failure",
            lambda hooks: hooks.on_failure(Failed(WORK, "internal", False)),
            "careloom_plugin_shown_failed_tries_total",
        ),
        ("careloom_metrics", lambda hooks: hooks.after_infer(TOLD), "careloom_plugin_shown_flags_total"),
    ],
)
def test_the_counter_of_the_example_counts(install: Any, hook: str, call: Any, name: str) -> None:
    loaded = shown(install, hook)
    assert name in loaded.counters
    counted = call(loaded.lifecycle)
    assert list(counted) == [name]
    assert all('"scenario":"post_visit.x"' in labels for labels in counted[name])


def test_every_hook_has_a_sentence_and_an_example() -> None:
    for name in HOOKS:
        assert (inspect.getdoc(HOOKS[name]) or "").splitlines()[0].endswith((".", ":")) or "->" in str(
            HOOKS[name].__doc__
        )
        assert "@hookimpl" in example(name)


class Silent(Guard):
    id = "silent"
    version = "1"
    codes = frozenset({"odd"})

    def check(self, answered: Answered) -> list[Verdict]:
        return []


def guard(**attributes: Any) -> Guard:
    return type("Changed", (Silent,), attributes)()


class Shelf:
    id = "shelf"

    def search(self, question: str, *, locale: str, cap: int) -> list[Any]:
        return []


def counter(**values: Any) -> Counter:
    return Counter(**({"name": "things", "help": "Things."} | values))


@pytest.mark.parametrize(
    ("hooks", "says"),
    [
        ({"guards": [Silent]}, "with the parentheses"),
        ({"guards": [object()]}, "is not a Guard instance"),
        ({"guards": [guard(id="Silent One")]}, "lower-case words with hyphens"),
        ({"guards": [guard(version="")]}, "guard silent: version is missing"),
        ({"guards": [guard(codes={"odd"})]}, "codes must be a frozenset"),
        ({"guards": [guard(codes=frozenset())]}, "codes must be a frozenset"),
        ({"guards": [Silent(), guard()]}, "guards: silent is taken"),
        ({"guards": 42}, "careloom_guards failed with TypeError"),
        ({"guards": None}, "have you forgotten `return`?"),
        ({"knowledge": [types.SimpleNamespace(id="shelf")]}, "search(question, *, locale, cap) is missing"),
        ({"knowledge": [types.SimpleNamespace(search=len)]}, "id None must be"),
        ({"knowledge": [Shelf(), Shelf()]}, "knowledge: shelf is taken"),
        ({"model_backends": {"My Kind": list}}, "a kind is lower-case"),
        ({"model_backends": {"mine": "list"}}, "give its class or another factory"),
        ({"model_backends": [list]}, "must return a mapping"),
        ({"model_backends": {"openai": list}}, "careloom has one of that kind"),
        ({"metrics": ["things"]}, "str is no Counter"),
        ({"metrics": [counter(name="careloom_things")]}, "without careloom and _total"),
        ({"metrics": [counter(name="things_total")]}, "without careloom and _total"),
        ({"metrics": [counter(help=" ")]}, "help is missing"),
        ({"metrics": [counter(labels={"scenario": frozenset({"a"})})]}, "scenario is added by careloom"),
        ({"metrics": [counter(labels={"kind": frozenset()})]}, "a label is a closed set"),
        ({"metrics": [counter(labels={"kind": frozenset({"张三"})})]}, "a label is a closed set"),
        ({"metrics": [counter(labels={"n": frozenset(map(str, range(MOST_SERIES + 1)))})]}, "drop a label"),
        ({"metrics": [counter(), counter()]}, "metrics: careloom_plugin_theirs_things_total is taken"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_the_rule_and_the_rest_runs(
    install: Any, hooks: dict[str, Any], says: str
) -> None:
    class Mine(FollowUp):
        id = "post_visit.mine"

    loaded = install(theirs=module(**hooks, scenarios=[Mine()]), other=module(guards=[guard(id="other")]))
    assert [plugin for plugin, _ in loaded.refused] == ["theirs"]
    assert says in loaded.refused[0][1]
    assert "post_visit.mine" in loaded.scenarios
    assert "other" in [one.id for one in loaded.guards]
    (theirs, other) = loaded.plugins
    assert says in theirs.why_not
    assert other.why_not == ""


def test_a_hook_with_an_argument_that_the_specification_lacks_is_told_which_hooks_there_are(install: Any) -> None:
    made = types.ModuleType("fake")

    @hookimpl
    def careloom_after_infer(inferred: Any, case: Any) -> None: ...

    made.careloom_after_infer = careloom_after_infer  # type: ignore[attr-defined]
    loaded = install(theirs=made)
    assert "case" in loaded.refused[0][1]
    assert "careloom_on_failure" in loaded.refused[0][1]
    assert loaded.plugins[0].enabled is False


def test_plugins_are_listed_with_where_they_are_from_and_why_they_do_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "their_package-3.2.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 3.2\n")
    (package / "entry_points.txt").write_text("[careloom]\non = their_module\noff = their_module\n")
    (tmp_path / "their_module.py").write_text(example("careloom_scenarios"))
    monkeypatch.syspath_prepend(tmp_path)
    listed = {plugin.name: plugin for plugin in installed_plugins(["on", "lost"], ["post_visit.my_scenario"])}
    on, off, lost = listed["on"], listed["off"], listed["lost"]
    assert (on.enabled, on.module, on.distribution, on.version) == (True, "their_module", "their-package", "3.2")
    assert on.brings == {"scenarios": ("post_visit.my_scenario",)}
    assert on.why_not == "post_visit.my_scenario is in plugins.disabled_scenarios"
    assert (off.enabled, off.version, off.why_not) == (False, "3.2", "not enabled; name it in plugins.enabled")
    assert (lost.enabled, lost.module) == (False, "")
    assert "no entry point 'lost'" in lost.why_not
    assert "their_module" in sys.modules
    built_in = listed["plugins.pre_visit.triage"]
    assert (built_in.enabled, built_in.distribution, built_in.brings["scenarios"]) == (
        True, "careloom", ("pre_visit.triage",),
    )  # fmt: skip


def test_what_is_merely_installed_is_not_even_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "quiet-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: quiet\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[careloom]\nquiet = quiet_module\n")
    (tmp_path / "quiet_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "quiet" in [plugin.name for plugin in load().plugins]
    assert "quiet_module" not in sys.modules
