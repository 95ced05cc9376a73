"""Vital signs out of FHIR Observations: LOINC codes in, numbers in known units out, and why one could not be used.

Codes: LOINC, as in the FHIR R4 vital signs profiles; ACVPU: SNOMED CT, as in UK Core's value set UKCore-ACVPU. Units
are UCUM codes; a number without one, with another one, or with a comparator ("<80") is not used and is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from plugins.fhir_text import codes, display, listed, moment, source_of
from plugins.news2 import PARAMETERS, Parameter, Value
from plugins.quantities import decimal, quantity
from plugins.record_lines import real
from plugins.scenario import Resource, Text

#: LOINC code -> parameter. Blood pressure counts as a component or by itself.
CODES: Mapping[str, Parameter] = {
    "9279-1": "respiration_rate",
    "2708-6": "spo2",
    "59408-5": "spo2",
    "3151-8": "supply",
    "3150-6": "supply",
    "8480-6": "systolic_pressure",
    "8867-4": "pulse",
    "8889-8": "pulse",
    "8893-0": "pulse",
    "67775-7": "consciousness",
    "80288-4": "consciousness",
    "1104441000000107": "consciousness",
    "8310-5": "temperature",
    "8331-1": "temperature",
    "8332-9": "temperature",
    "8333-7": "temperature",
    "8328-7": "temperature",
}
#: Observations that hold a parameter among their components.
PANELS = ("85354-9", "55284-4")

_PER_MINUTE = {"/min": Decimal(1), "1/min": Decimal(1), "min-1": Decimal(1)}
_UNITS: Mapping[Parameter, Mapping[str, Decimal]] = {
    "respiration_rate": _PER_MINUTE,
    "pulse": _PER_MINUTE,
    "spo2": {"%": Decimal(1)},
    "systolic_pressure": {"mm[Hg]": Decimal(1)},
}
#: What cannot be a measurement of a living patient is a wrong entry, not a score.
_PLAUSIBLE: Mapping[Parameter, tuple[int, int]] = {
    "respiration_rate": (0, 120),
    "spo2": (0, 100),
    "systolic_pressure": (0, 400),
    "pulse": (0, 400),
    "temperature": (10, 50),
}
_ACVPU: Mapping[str, str] = {
    "248234008": "alert",
    "130987000": "confusion",
    "300202002": "voice",
    "450847001": "pain",
    "422768004": "unresponsive",
}
_ACVPU_WORDS: tuple[tuple[str, str], ...] = (
    ("alert", r"a|alert|mentally alert|清醒|神清|神志清楚|意识清楚"),
    ("confusion", r"c|(?:new |acute )?confus(?:ion|ed)|意识模糊|新发意识模糊|谵妄"),
    ("voice", r"v|voice|(?:responds|response) to voice|对(?:声音|呼唤)有反应"),
    ("pain", r"p|pain|(?:responds|response) to pain|对疼痛有反应"),
    ("unresponsive", r"u|unresponsive|无反应|昏迷"),
)
_WRONG_UNIT = Text("单位缺失或不符", "its unit is missing or another one")
_NO_NUMBER = Text("无可用数值", "no usable value")
_IMPLAUSIBLE = Text("数值不可信", "its value is implausible")


@dataclass(frozen=True, slots=True)
class Reading:
    """The newest measurement of one parameter.

    Attributes:
        value: number in the parameter's unit, or a state; None where it cannot be used.
        why: why it cannot be used; None where it can.
        source: "Type/id".
        at: when it was taken.
    """

    value: Value | None
    why: Text | None
    source: str
    at: datetime


def taken(observation: Resource) -> datetime | None:
    """When an Observation was made: effective[x], else issued; None where it says neither."""
    period = observation.get("effectivePeriod") or {}
    stated = (observation.get("effectiveDateTime"), observation.get("effectiveInstant"), period.get("end"))
    return next(filter(None, map(moment, (*stated, period.get("start"), observation.get("issued")))), None)


def newest(observations: Iterable[Resource], until: datetime, within: timedelta) -> dict[Parameter, Reading]:
    """The newest reading of each parameter that was taken in the time `within` before `until`.

    A newest reading that cannot be used stays, with its reason: an older normal one must not hide it.
    """
    found: dict[Parameter, Reading] = {}
    for observation in real(observations):
        at = taken(observation)
        if at is None or not until - within < at <= until:
            continue
        for parameter, value, why in _measured(observation):
            reading = Reading(value, why, source_of(observation), at)
            held = found.get(parameter)
            if held is None or _rank(parameter, reading) > _rank(parameter, held):
                found[parameter] = reading
    return {parameter: found[parameter] for parameter in PARAMETERS if parameter in found}


def prescribed_scale(goals: Iterable[Resource]) -> tuple[Literal[1, 2], tuple[str, ...]]:
    """The SpO2 scale, and the Goal ("Type/id") that asks for scale 2: an active target saturation of 88-92 %.

    Source: RCP 2017, observation chart: scale 2 if the target range is 88-92 %, only under the direction of a qualified
    clinician. A diagnosis alone does not choose it.
    """
    for goal in real(goals):
        if goal.get("lifecycleStatus") not in ("accepted", "active"):
            continue
        for target in listed(goal, "target"):
            limits = target.get("detailRange") or {}
            bounds = tuple(decimal((limits.get(end) or {}).get("value")) for end in ("low", "high"))
            spo2 = any(CODES.get(code) == "spo2" for code in codes(target.get("measure")))
            if spo2 and bounds == (Decimal(88), Decimal(92)):
                return 2, (source_of(goal),)
    return 1, ()


def _rank(parameter: Parameter, reading: Reading) -> tuple[datetime, bool, bool]:
    """Newer first; at one time, oxygen before air (flow and concentration), and what can be used before what cannot."""
    return reading.at, reading.value is not None, parameter == "supply" and reading.value == "oxygen"


def _measured(observation: Resource) -> Iterator[tuple[Parameter, Value | None, Text | None]]:
    for holder in (observation, *listed(observation, "component")):
        if not isinstance(holder, Mapping):
            continue
        for code in sorted(codes(holder.get("code")) & CODES.keys()):
            parameter = CODES[code]
            read = {"consciousness": _consciousness, "supply": _supply, "temperature": _temperature}.get(parameter)
            yield parameter, *(read(holder, code) if read else _number(parameter, holder))
            break


def _number(parameter: Parameter, holder: Mapping[str, Any]) -> tuple[Value | None, Text | None]:
    amount, unit = quantity(holder)
    if amount is None:
        return None, _NO_NUMBER
    factor = _UNITS[parameter].get(unit)
    return (None, _WRONG_UNIT) if factor is None else _plausible(parameter, amount * factor)


def _temperature(holder: Mapping[str, Any], _: str) -> tuple[Value | None, Text | None]:
    amount, unit = quantity(holder)
    if amount is None:
        return None, _NO_NUMBER
    if unit not in ("Cel", "[degF]"):
        return None, _WRONG_UNIT
    return _plausible("temperature", amount if unit == "Cel" else (amount - 32) * 5 / 9)


def _supply(holder: Mapping[str, Any], code: str) -> tuple[Value | None, Text | None]:
    """Oxygen is given where a flow is above zero (3151-8) or the inspired concentration above that of air (3150-6)."""
    amount, unit = quantity(holder)
    if amount is None or amount < 0:
        return None, _NO_NUMBER
    wanted, air = ("L/min", Decimal(0)) if code == "3151-8" else ("%", Decimal(21))
    if unit != wanted:
        return None, _WRONG_UNIT
    return ("oxygen" if amount > air else "air"), None


def _consciousness(holder: Mapping[str, Any], _: str) -> tuple[Value | None, Text | None]:
    concept = holder.get("valueCodeableConcept")
    states = {_ACVPU[code] for code in codes(concept) & _ACVPU.keys()}
    said = display(concept) or str(holder.get("valueString") or "")
    if not states:
        states = {state for state, words in _ACVPU_WORDS if re.fullmatch(rf"(?i)\s*(?:{words})\s*", said)}
    return (states.pop(), None) if len(states) == 1 else (None, _NO_NUMBER)


def _plausible(parameter: Parameter, amount: Decimal) -> tuple[Value | None, Text | None]:
    low, high = _PLAUSIBLE[parameter]
    return (amount, None) if low <= amount <= high else (None, _IMPLAUSIBLE)
