"""Every metric that careloom declares. Nothing is declared elsewhere; labels come from closed sets only.

Names follow Prometheus' practice and, for the model, OpenTelemetry's semantic conventions for generative AI. There is
one registry for each kind of process, so that no process shows another's counters at 0. One file here for each; all
names are had by `from monitoring.metrics import NAME`:

    GATEWAY, DISPATCHER   counted where it happens, by the process itself; the objects below are what it calls
    EXPORTER              what short-lived Airflow tasks did, read from the ledger; see `LEDGER` and
                          `monitoring.ledger_collector`: exact, and never going back when a task is killed

`docs/metrics.md` is written from this package by `python -m monitoring.reference`.
"""

from __future__ import annotations

from monitoring.metrics.answers import *
from monitoring.metrics.decisions import *
from monitoring.metrics.declaring import *
from monitoring.metrics.dispatcher import *
from monitoring.metrics.exporter import *
from monitoring.metrics.folding import *
from monitoring.metrics.gateway import *
from monitoring.metrics.labels import *
from monitoring.metrics.serving import *
from monitoring.metrics.sources import *
from monitoring.metrics.work import *
