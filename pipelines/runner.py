"""What an Airflow task calls: `infer(run_id)` and `write_back(run_id)`; each works through the rows of one run.

Airflow is given a run id and gives one: no resource, no text, no name passes through it. Heavy imports stand in the
functions, as each task is a process of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from pipelines.batch import Batch, Outcome, Summary, called
from pipelines.breaker import Breakers
from pipelines.config import Config, load
from pipelines.fail_points import fail_point
from pipelines.log_context import hush

if TYPE_CHECKING:
    from pipelines.ledger.rows import WorkItem
    from pipelines.ledger.store import Ledger
    from pipelines.models.fleet import Fleet
    from pipelines.payloads import PayloadSource
    from pipelines.sources import Sources
    from plugins.hookspecs import Settings
    from plugins.manager import Loaded

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
    loaded: Loaded,
    payloads: PayloadSource,
    sources: Sources,
    fleet: Fleet,
) -> Summary:
    """`infer` with its dependencies given."""
    from pipelines.inference import Inferring

    items = await called(ledger.claim, run_id, config.runner.lease)
    fail_point("runner.claimed")
    payloads.expect(item.event for item in items)
    batch = _batch(config, ledger, run_id, items)
    step = Inferring(config, ledger, batch, loaded, payloads, sources, fleet)
    usual = config.runner.concurrency
    concurrency = max((fleet.concurrency(item.scenario, usual) for item in items), default=usual)
    outcomes, errors = await batch.work(step, concurrency=concurrency)
    return Summary("infer", run_id, outcomes, errors)


async def write_rows(config: Config, ledger: Ledger, run_id: str, *, sources: Sources) -> Summary:
    """`write_back` with its dependencies given."""
    from pipelines.recognition import recognised
    from pipelines.write_back import send, unpack

    items = await called(ledger.claim_inferred, run_id, config.runner.lease)
    batch = _batch(config, ledger, run_id, items)

    async def step(item: WorkItem) -> Outcome:
        if (known := recognised(item.drafts)) is not None:
            await called(ledger.written, item, known)
            return Outcome.WRITTEN
        outgoing = unpack(item.drafts or {})
        server = sources.of(item.event.source)
        fail_point("runner.sending")
        sent = await send(server.client, item.identity, outgoing, confirm=partial(batch.confirm, item))
        batch.wrote(item)
        fail_point("runner.sent")
        await called(ledger.written, item, sent.written)
        fail_point("runner.written")
        return Outcome.WRITTEN

    outcomes, errors = await batch.work(step, concurrency=config.runner.concurrency)
    return Summary("write_back", run_id, outcomes, errors)


async def _infer(run_id: str, config: Config) -> Summary:
    from pipelines.models.fleet import Fleet
    from pipelines.payloads import KafkaPayloads
    from pipelines.sources import Sources
    from plugins.manager import load as load_plugins

    hush(asyncio.get_running_loop())
    async with AsyncExitStack() as closing:
        ledger = _ledger(config, closing)
        payloads = KafkaPayloads(config.kafka)
        closing.callback(payloads.close)
        sources = Sources(config)
        closing.push_async_callback(sources.aclose)
        enabled, disabled = config.plugins.enabled, config.plugins.disabled_scenarios
        loaded = load_plugins(enabled, disabled, settings=lambda plugin: _settings(config, plugin))
        fleet = Fleet(config.registry, loaded.backends)
        closing.push_async_callback(fleet.close)
        return await infer_rows(config, ledger, run_id, loaded=loaded, payloads=payloads, sources=sources, fleet=fleet)


async def _write_back(run_id: str, config: Config) -> Summary:
    from pipelines.sources import Sources

    hush(asyncio.get_running_loop())
    async with AsyncExitStack() as closing:
        ledger = _ledger(config, closing)
        sources = Sources(config)
        closing.push_async_callback(sources.aclose)
        return await write_rows(config, ledger, run_id, sources=sources)


def _settings(config: Config, plugin: str) -> Settings:
    """What a plugin may know of the configuration."""
    from plugins.hookspecs import Settings

    return Settings(config.state_dir, config.locale, config.plugins.settings.get(plugin, {}))


def _batch(config: Config, ledger: Ledger, run_id: str, items: Sequence[WorkItem]) -> Batch:
    return Batch(ledger, items, lease=config.runner.lease, breakers=Breakers(ledger, run_id))


def _ledger(config: Config, closing: AsyncExitStack) -> Ledger:
    from pipelines.ledger import Ledger, engine

    made = engine(config.ledger.url.get_secret_value())
    closing.callback(made.dispose)
    limits = config.dispatcher
    return Ledger(made, max_attempts=limits.max_attempts, backoff=limits.backoff, backoff_cap=limits.backoff_cap)
