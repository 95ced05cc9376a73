"""Three scenarios of an outside plugin: a panel's opinion, a reading of an ECG's samples, a summary that can wait."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from plugins.fhir_text import DEVICE, Line, cited, display, narrative, source_of, subject
from plugins.hookspecs import hookimpl
from plugins.panel import PanelAnswer
from plugins.scenario import Case, Draft, Fact, Finding, Prompt, Risk, Scenario, Stage, Statement, Text, Trigger
from plugins.tensors import Tensor

#: Samples of an ECG that the model takes at a time.
_SAMPLES = 4


class _Bounded(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Point(Statement):
    """One sentence."""

    text: Annotated[str, Field(max_length=60)]


class Opinion(_Bounded):
    """How soon somebody on a waiting list should be seen."""

    urgency: Literal["routine", "soon", "today"]
    points: Annotated[list[Point], Field(max_length=1)]


class Reading(_Bounded):
    """What the model makes of the samples: its outputs, by their names."""

    mean: Annotated[float, Field(ge=0, le=65535)]
    label: Literal["regular", "irregular"]


class Summary(_Bounded):
    """One sentence on a procedure."""

    points: Annotated[list[Point], Field(max_length=1)]


class _Ours:
    version = "0.1.0"
    risk = Risk.A
    record = ()
    max_tokens = 120
    deadline = timedelta(minutes=10)


class WaitingList(_Ours, Scenario[Opinion]):
    """Several models are asked; the draft says who said what."""

    id = "pre_visit.waiting_list"
    title = Text(zh="候诊排序", en="Waiting list")
    stage = Stage.PRE_VISIT
    triggers = (Trigger("Appointment", where={"status": ("waitlist",)}, why="somebody waits for a place"),)
    output_model = Opinion
    prompt_version = "waiting-list-1"
    panel = True

    def prompt(self, case: Case) -> Prompt:
        """What the appointment says."""
        instruction = Text(zh="判断候诊者多快应被接诊。", en="Say how soon this person should be seen.")
        reason = str(case.trigger.get("description") or "-")
        return Prompt(instruction.in_(case.locale), [Fact(source_of(case.trigger), reason)])

    def drafts(self, case: Case, answer: Opinion, findings: Sequence[Finding]) -> Sequence[Draft]:
        """Never asked for: this is a panel's."""
        raise AssertionError("a panel's drafts come of drafts_of_panel")

    def drafts_of_panel(self, case: Case, answer: PanelAnswer[Opinion], findings: Sequence[Finding]) -> Sequence[Draft]:
        """A line for each model, and one for each finding."""
        said = [f"{model}: {opinion.urgency}" for model, opinion in answer.answers.items()]
        lines = [Line(text, (source_of(case.trigger),)) for text in said]
        lines += [Line(finding.text.in_(case.locale)) for finding in findings]
        return [Draft("opinions", _communication(case, lines), (source_of(case.trigger),))]


class Ecg(_Ours, Scenario[Reading]):
    """Samples go to a server of the Open Inference Protocol; what comes back is a preliminary report."""

    id = "in_visit.ecg_reading"
    title = Text(zh="心电图判读", en="ECG reading")
    stage = Stage.IN_VISIT
    triggers = (Trigger("Observation", where={"code.coding.code": ("11524-6",)}, why="an ECG was recorded"),)
    output_model = Reading
    prompt_version = "ecg-1"

    def prompt(self, case: Case) -> Prompt:
        """The first samples of valueSampledData."""
        sampled = case.trigger.get("valueSampledData") or {}
        given = [float(word) for word in str(sampled.get("data", "")).split()[:_SAMPLES]]
        pixels = (*given, *(0.0,) * (_SAMPLES - len(given)))
        return Prompt("", [], tensors=(Tensor("pixels", (1, _SAMPLES), "FP32", pixels),))

    def drafts(self, case: Case, answer: Reading, findings: Sequence[Finding]) -> Sequence[Draft]:
        """One report."""
        patient = subject(case)
        if patient is None:
            return ()
        text = f"{answer.label}; {answer.mean:g}"
        resource = {
            "resourceType": "DiagnosticReport",
            "text": narrative([("ECG", [Line(text, (source_of(case.trigger),))])], case.locale),
            "status": "preliminary",
            "code": {"text": "ECG"},
            "subject": {"reference": patient},
            "result": [{"reference": source_of(case.trigger)}],
            "conclusion": text,
        }
        return [Draft("report", resource, (source_of(case.trigger),))]


class AfterProcedure(_Ours, Scenario[Summary]):
    """A sentence for the file, from a model that answers in batches."""

    id = "post_visit.after_procedure"
    title = Text(zh="操作后小结", en="After a procedure")
    stage = Stage.POST_VISIT
    triggers = (Trigger("Procedure", where={"status": ("completed",)}, why="a procedure is done"),)
    output_model = Summary
    prompt_version = "after-procedure-1"

    def prompt(self, case: Case) -> Prompt:
        """What was done."""
        instruction = Text(zh="用一句话概括所做的操作。", en="Sum up in one sentence what was done.")
        return Prompt(instruction.in_(case.locale), [Fact(source_of(case.trigger), display(case.trigger.get("code")))])

    def drafts(self, case: Case, answer: Summary, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The sentence, or that none was left."""
        said = [Line(point.text, cited(point.sources)) for point in answer.points] or [Line("-")]
        return [Draft("summary", _communication(case, said), (source_of(case.trigger),))]


def _communication(case: Case, lines: Sequence[Line]) -> dict[str, Any]:
    return {
        "resourceType": "Communication",
        "text": narrative([("AI", lines)], case.locale),
        "status": "preparation",
        "subject": {"reference": subject(case)},
        "sender": {"reference": DEVICE},
        "payload": [{"contentString": line.text} for line in lines],
    }


@hookimpl
def careloom_scenarios() -> Iterable[Scenario[Any]]:
    """All three."""
    return [WaitingList(), Ecg(), AfterProcedure()]
