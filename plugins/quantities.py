"""Numbers out of FHIR, exactly as they were written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any


def quantity(holder: Mapping[str, Any]) -> tuple[Decimal | None, str]:
    """The number of `valueQuantity` and its UCUM code without annotations ("{breaths}/min" is "/min").

    None for what is no number, or only a bound of one (a comparator).
    """
    value = holder.get("valueQuantity")
    if not isinstance(value, Mapping) or value.get("comparator"):
        return None, ""
    return decimal(value.get("value")), re.sub(r"\{[^}]*\}", "", str(value.get("code") or ""))


def bounds(holder: Mapping[str, Any]) -> tuple[Decimal | None, Decimal | None]:
    """Between what the number of `valueQuantity` lies: (88, 88), or (60, None) for "> 60", (None, 15) for "< 15"."""
    value = holder.get("valueQuantity")
    number = decimal(value.get("value")) if isinstance(value, Mapping) else None
    if number is None or not isinstance(value, Mapping):
        return None, None
    comparator = str(value.get("comparator") or "=")
    return (None if "<" in comparator else number), (None if ">" in comparator else number)


def decimal(value: object) -> Decimal | None:
    """A JSON number as it was written; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
