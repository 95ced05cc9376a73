"""The built-in scenarios keep to the conformance kit that outside plugins are held to."""

from __future__ import annotations

from pathlib import Path

from plugins.golden import read
from plugins.in_visit.admission_note import AdmissionNote
from plugins.in_visit.exam_recommendation import ExamRecommendation
from plugins.in_visit.icu_watch import IcuWatch
from plugins.in_visit.order_safety import OrderSafety
from plugins.in_visit.record_qc import RecordQc
from plugins.post_visit.adherence_risk import AdherenceRisk
from plugins.post_visit.discharge_summary import DischargeSummary
from plugins.post_visit.follow_up import FollowUp
from plugins.pre_visit.health_education import HealthEducation
from plugins.pre_visit.patient_qa import PatientQa
from plugins.pre_visit.triage import Triage
from plugins.pre_visit.visit_brief import VisitBrief
from plugins.testing import ScenarioConformance

FOLDER = Path(__file__).parent / "golden"


class TestTriage(ScenarioConformance):
    scenario = Triage()
    cases = tuple(golden.case for golden in read(FOLDER / "triage"))


class TestAdmissionNote(ScenarioConformance):
    scenario = AdmissionNote()
    cases = tuple(golden.case for golden in read(FOLDER / "admission_note"))


class TestFollowUp(ScenarioConformance):
    scenario = FollowUp()
    cases = tuple(golden.case for golden in read(FOLDER / "follow_up"))


class TestExamRecommendation(ScenarioConformance):
    scenario = ExamRecommendation()
    cases = tuple(golden.case for golden in read(FOLDER / "exam_recommendation"))


class TestRecordQc(ScenarioConformance):
    scenario = RecordQc()
    cases = tuple(golden.case for golden in read(FOLDER / "record_qc"))


class TestOrderSafety(ScenarioConformance):
    scenario = OrderSafety()
    cases = tuple(golden.case for golden in read(FOLDER / "order_safety"))


class TestIcuWatch(ScenarioConformance):
    scenario = IcuWatch()
    cases = tuple(golden.case for golden in read(FOLDER / "icu_watch"))


class TestPatientQa(ScenarioConformance):
    scenario = PatientQa()
    cases = tuple(golden.case for golden in read(FOLDER / "patient_qa"))


class TestHealthEducation(ScenarioConformance):
    scenario = HealthEducation()
    cases = tuple(golden.case for golden in read(FOLDER / "health_education"))


class TestVisitBrief(ScenarioConformance):
    scenario = VisitBrief()
    cases = tuple(golden.case for golden in read(FOLDER / "visit_brief"))


class TestDischargeSummary(ScenarioConformance):
    scenario = DischargeSummary()
    cases = tuple(golden.case for golden in read(FOLDER / "discharge_summary"))


class TestAdherenceRisk(ScenarioConformance):
    scenario = AdherenceRisk()
    cases = tuple(golden.case for golden in read(FOLDER / "adherence_risk"))
