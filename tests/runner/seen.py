"""What runs leave to be seen: samples of metrics, and Provenance at the FHIR server."""

from __future__ import annotations

import json
from typing import Any

from pipelines.ledger.fold import fold_all
from pipelines.ledger.snapshot import snapshot


def samples(house: Any, name: str) -> dict[str, float]:
    """Labels as JSON -> value, of one metric, with all that is finished."""
    fold_all(house.engine)
    return {json.dumps(s.labels, sort_keys=True): s.value for s in snapshot(house.engine).samples if s.name == name}


def provenance(house: Any) -> Any:
    """The last one that was written."""
    return house.fhir.written("Provenance")[-1]
