"""Where events come in over HTTP: authenticated, checked, durable in Kafka, and only then answered with 2xx.

authentication, body   who may send, and how much
reception              the way of one request
endpoints, answers     HTTP around it
upkeep                 subscriptions, reconciling, event numbers, the connection to Kafka
app                    puts them together; `python -m pipelines.gateway` serves it
"""

from __future__ import annotations

from pipelines.gateway.app import create_app

__all__ = ["create_app"]
