"""What an Airflow task calls: `infer(run_id)` and `write_back(run_id)`; each works through the rows of one run.

Airflow is given a run id and gives one: no resource, no text, no name passes through it. Heavy imports stand in the
functions, as each task is a process of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from pipelines.batch import Batch, Outcome, Summary, called
from pipelines.config import Config, load
from pipelines.fail_points import fail_point

if TYPE_CHECKING:
    from pipelines.ledger.rows import WorkItem
    from pipelines.ledger.store import Ledger
    from pipelines.models.base import ModelBackend
    from pipelines.payloads import PayloadSource
    from pipelines.sources import Sources
    from plugins.scenario import Scenario

Step = Callable[["WorkItem"], Awaitable[Outcome]]


def infer(run_id: str, config: Config | None = None) -> Summary:
    """From events to drafts in the outbox, for the rows of a run.

    Red flags are written to the FHIR server at once, before the model is asked.

    Raises:
        ConfigError: the configuration is wrong.
        LedgerError: the ledger does not answer; the rows are taken again by the next try.
    """
    return asyncio.run(_infer(run_id, config or load()))


def write_back(run_id: str, config: Config | None = None) -> Summary:
    """From the outbox to the FHIR server, for the rows of a run.

    Raises:
        ConfigError: the configuration is wrong.
        LedgerError: the ledger does not answer; the rows are taken again by the next try.
    """
    return asyncio.run(_write_back(run_id, config or load()))


async def infer_rows(
    config: Config,
    ledger: Ledger,
    run_id: str,
    *,
    scenarios: Mapping[str, Scenario[Any]],
    payloads: PayloadSource,
    sources: Sources,
    model: ModelBackend,
) -> Summary:
    """`infer` with its dependencies given."""
    from pipelines.inference import Inferring

    items = await called(ledger.claim, run_id, config.runner.lease)
    fail_point("runner.claimed")
    payloads.expect(item.event for item in items)
    batch = Batch(ledger, items, lease=config.runner.lease)
    step = Inferring(config, ledger, batch, scenarios, payloads, sources, model)
    outcomes, errors = await batch.work(step, concurrency=config.runner.concurrency)
    return Summary("infer", run_id, outcomes, errors)


async def write_rows(config: Config, ledger: Ledger, run_id: str, *, sources: Sources) -> Summary:
    """`write_back` with its dependencies given."""
    from pipelines.write_back import send, unpack

    items = await called(ledger.claim_inferred, run_id, config.runner.lease)
    batch = Batch(ledger, items, lease=config.runner.lease)

    async def step(item: WorkItem) -> Outcome:
        outgoing = unpack(item.drafts or {})
        server = sources.of(item.event.source)
        await batch.confirm(item)
        fail_point("runner.sending")
        sent = await send(server.client, item.identity, outgoing)
        fail_point("runner.sent")
        await called(ledger.written, item, sent.written)
        fail_point("runner.written")
        return Outcome.WRITTEN

    outcomes, errors = await batch.work(step, concurrency=config.runner.concurrency)
    return Summary("write_back", run_id, outcomes, errors)


async def _infer(run_id: str, config: Config) -> Summary:
    from pipelines.models.openai_chat import OpenAIChat
    from pipelines.payloads import KafkaPayloads
    from pipelines.sources import Sources
    from plugins.manager import load as load_plugins

    async with AsyncExitStack() as closing:
        ledger = _ledger(config, closing)
        payloads = KafkaPayloads(config.kafka)
        closing.callback(payloads.close)
        sources = Sources(config)
        closing.push_async_callback(sources.aclose)
        model = OpenAIChat(config.model)
        closing.push_async_callback(model.close)
        loaded = load_plugins(config.plugins.enabled, config.plugins.disabled_scenarios)
        return await infer_rows(
            config, ledger, run_id, scenarios=loaded.scenarios, payloads=payloads, sources=sources, model=model
        )


async def _write_back(run_id: str, config: Config) -> Summary:
    from pipelines.sources import Sources

    async with AsyncExitStack() as closing:
        ledger = _ledger(config, closing)
        sources = Sources(config)
        closing.push_async_callback(sources.aclose)
        return await write_rows(config, ledger, run_id, sources=sources)


def _ledger(config: Config, closing: AsyncExitStack) -> Ledger:
    from pipelines.ledger import Ledger, engine

    made = engine(config.ledger.url.get_secret_value())
    closing.callback(made.dispose)
    limits = config.dispatcher
    return Ledger(made, max_attempts=limits.max_attempts, backoff=limits.backoff, backoff_cap=limits.backoff_cap)
