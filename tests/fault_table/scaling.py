"""A copy of the rules in which every `for:` and every window is shorter by the same factor.

The shipped rules are what counts; promtool proves their arithmetic. A copy is for windows of hours, and for a look.
"""

from __future__ import annotations

import re
from typing import Any

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+)([smhd])")
#: Two scrapes of 5 s and some: no rate has a value over less, and a restart is no outage.
LEAST_WINDOW = 15


def scaled_durations(text: str, scale: float, *, least: int) -> str:
    """`5m` as so many seconds of it, never under `least`; a shorter one stays as it is.

    Args:
        text: one duration of Prometheus'.
        scale: between 0 and 1.
        least: seconds.
    """
    whole = sum(int(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
    return f"{max(min(least, whole), round(whole * scale))}s"


def scaled(rules: dict[str, Any], scale: float) -> dict[str, Any]:
    """The rules of one file, scaled; annotations, thresholds and intervals stay.

    So does `keep_firing_for`: breakers and late work, which it outlasts, do not scale.

    Args:
        rules: as YAML gives them.
        scale: between 0 and 1.
    """
    groups = [{**group, "rules": [_rule(rule, scale) for rule in group["rules"]]} for group in rules["groups"]]
    return {**rules, "groups": groups}


def _rule(rule: dict[str, Any], scale: float) -> dict[str, Any]:
    changed = {**rule, "expr": windows(rule["expr"], scale)}
    waits = {key: scaled_durations(rule[key], scale, least=LEAST_WINDOW) for key in ("for",) if key in rule}
    return changed | waits


def windows(expression: str, scale: float) -> str:
    """An expression with shorter windows and offsets.

    Args:
        expression: PromQL.
        scale: between 0 and 1.
    """

    def window(found: re.Match[str]) -> str:
        return f"[{scaled_durations(found[1], scale, least=LEAST_WINDOW)}]"

    def offset(found: re.Match[str]) -> str:
        return f"offset {scaled_durations(found[1], scale, least=LEAST_WINDOW)}"

    return re.sub(r"offset (\w+)", offset, re.sub(r"\[(\w+)\]", window, expression))
