"""The name of a patient that must turn up in no log, no metric and no error."""

from __future__ import annotations

CANARY = "Zanzibarov"
