"""`careloom try`: one scenario on one patient, with no service running, and everything shown that came of it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.configuration import configuration_if_any
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.authoring.trial import Answers, Trial
    from plugins.manager import Loaded
    from plugins.scenario import Draft, Finding, Locale, Scenario


def try_(
    scenario: Annotated[str, typer.Argument(help="Its id.")],
    patient: Annotated[
        str, typer.Option(help="A FHIR Bundle or resource (.json, .json.gz), a golden case, or a patient of the demo.")
    ],
    package: Annotated[str, typer.Option(help="The folder or file that brings it, where it is not installed.")] = "",
    event: Annotated[Path | None, typer.Option(help="The resource that starts it; else the newest that does.")] = None,
    answer: Annotated[list[Path] | None, typer.Option(help="What the model says, as JSON; once a question.")] = None,
    model: Annotated[
        tuple[str, str] | None, typer.Option(metavar="URL NAME", help="Any OpenAI-compatible server (URL ends in /v1).")
    ] = None,
    locale: Annotated[str, typer.Option(help="zh or en; else the golden case's, else zh.")] = "",
    now: Annotated[str, typer.Option(help="The scenario's clock, ISO 8601; else the time of the event.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Run one scenario on a file and show prompt, answer, verdicts of the guards, findings and drafts.

    Neither Kafka nor Airflow, ledger or FHIR server is needed, and nothing is written anywhere. Without --answer and
    --model the stand-in answers: the least JSON that the schema allows, and no model's opinion.

    Examples:

      careloom try pre_visit.triage --patient synthea-01

      careloom try pre_visit.my_scenario --package . --patient tests/golden/en_red_flag.json

      careloom try in_visit.admission_note --patient bundle.json --model http://127.0.0.1:8000/v1 Qwen3-8B --locale en
    """
    from pipelines.authoring.record_file import read_patient, read_resource
    from pipelines.authoring.trial import run

    chosen = _scenario(scenario, package)
    language = _locale(locale)
    with tempfile.TemporaryDirectory(prefix="careloom-try-") as folder:
        loaded = _loaded(chosen, Path(folder))
        trial = asyncio.run(
            run(
                chosen,
                read_patient(patient, language or "zh"),
                event=read_resource(event) if event else None,
                now=_time(now),
                answers=_answers(patient, answer or (), model),
                locale=language,
                guards=loaded.guards,
                knowledge=loaded.knowledge,
            )
        )
    if as_json:
        typer.echo(json.dumps(asdict(trial), ensure_ascii=False, default=str))
    else:
        typer.echo("\n".join(_shown(trial)))
    if trial.problems:
        raise typer.Exit(1)


def _scenario(id_: str, package: str) -> Scenario[Any]:
    from pipelines.authoring.target import find

    targets = find(package or id_)
    for one in (scenario for target in targets for scenario in target.scenarios):
        if one.id == id_:
            return one
    refused = "; ".join(reason for target in targets for reason in target.refused)
    brought = ", ".join(scenario.id for target in targets for scenario in target.scenarios) or "none"
    raise ConfigError(
        f"{package or id_} brings no scenario {id_} (it brings {brought}){'; ' if refused else ''}{refused}"
    )


def _locale(text: str) -> Locale | None:
    known: dict[str, Locale | None] = {"zh": "zh", "en": "en", "": None}
    if text not in known:
        raise ConfigError(f"--locale {text}: write zh or en")
    return known[text]


def _time(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text) if text else None
    except ValueError:
        raise ConfigError(f"--now {text}: no time; write one as in 2026-11-22T08:00:00+08:00") from None
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def _answers(patient: str, files: Iterable[Path], model: tuple[str, str] | None) -> Answers:
    """From the command line, else from the golden case, else the stand-in's."""
    from pipelines.authoring.record_file import given_answer
    from pipelines.authoring.trial import Answers

    try:
        given = [file.read_text(encoding="utf-8") for file in files]
    except OSError as error:
        raise ConfigError(f"--answer {error.filename}: cannot be read: {error.strerror}") from None
    if given and model:
        raise ConfigError("--answer and --model: choose one")
    return Answers(given or ([] if model else given_answer(patient)), model)


def _loaded(scenario: Scenario[Any], folder: Path) -> Loaded:
    """Guards and knowledge as they would be; a knowledge base of no stack is made in `folder`."""
    from plugins.hookspecs import Settings
    from plugins.manager import load

    config = configuration_if_any()
    enabled = config.plugins.enabled if config else ()
    own = config.plugins.settings if config else {}
    state = config.state_dir if config else folder
    if not scenario.knowledge:
        return load(enabled)
    return load(
        enabled, settings=lambda plugin: Settings(state, config.locale if config else "zh", own.get(plugin, {}))
    )


def _shown(trial: Trial) -> Iterator[str]:
    yield f"{trial.scenario} {trial.version} on {trial.event} ({trial.why}), as of {trial.now.isoformat()}"
    found = [f"{count} {name}{' (and more)' if name in trial.truncated else ''}" for name, count in trial.found.items()]
    yield f"record: {', '.join(found) or 'nothing asked for'}"
    for name in trial.not_applied:
        yield f"        {name} cannot be searched for in a file and was not applied"
    yield from _findings("rules found", trial.findings)
    yield from _drafts("drafts of the rules, before any model", trial.rule_drafts)
    if not trial.asked:
        yield "\nNo model is asked: the scenario does not want to."
        return
    for number, question in enumerate(trial.questions, start=1):
        yield f"\n--- question {number}, to {question.model}: system (the same for every case)\n{question.system}"
        yield f"--- question {number}: user\n{question.user}\n--- answer {number}, by {_by(trial)}\n{question.answer}"
    verdicts = [
        f"{guard}.{code}: {_counts(counts)}"
        for guard, codes in trial.verdicts.items()
        for code, counts in codes.items()
    ]
    yield f"\nguards: {', '.join(verdicts) or 'nothing found'}; statements cut in all: {trial.cut}"
    yield from _findings("the reader is told", trial.notices)
    yield from _drafts("drafts", trial.drafts)
    yield from (f"PROBLEM {problem}" for problem in trial.problems)


def _by(trial: Trial) -> str:
    words = {"stand-in": "the stand-in: the least that the schema allows, and no model's opinion", "given": "the file"}
    return words.get(trial.answered_by, trial.answered_by)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {action}" for action, number in counts.items())


def _findings(title: str, findings: Iterable[Finding]) -> Iterator[str]:
    lines = [f"  {f.severity.value} {f.code}: {f.text.zh} | {f.text.en} [{', '.join(f.sources)}]" for f in findings]
    if lines:
        yield f"\n{title}:"
        yield from lines


def _drafts(title: str, drafts: Iterable[Draft]) -> Iterator[str]:
    from plugins.golden import words

    drafts = list(drafts)
    yield f"\n{title}: {', '.join(d.name for d in drafts) or 'none'}"
    for draft in drafts:
        said = [line.strip() for line in words(draft.resource).splitlines() if line.strip()]
        yield f"--- {draft.name}: {draft.resource.get('resourceType')}, rests on {', '.join(draft.sources)}"
        yield from (f"  {line}" for line in said)
        yield json.dumps(draft.resource, ensure_ascii=False, indent=1, default=str)
