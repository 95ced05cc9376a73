"""What an Airflow task calls: `carry(run_id)` takes the rows of one run from their events to the FHIR server.

Airflow is given a run id and gives one: no resource, no text, no name passes through it. Heavy imports stand in the
functions, as each task is a process of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pipelines.config import Config, load
from pipelines.errors import LedgerError
from pipelines.fail_points import fail_point
from pipelines.failures.dependencies import writing_of
from pipelines.runner.batch import Batch, Summary, Write, called
from pipelines.runner.breaker import Breakers
from pipelines.telemetry import tracing
from pipelines.telemetry.log_context import hush

if TYPE_CHECKING:
    from pipelines.kafka.payloads import PayloadSource
    from pipelines.ledger.rows import WorkItem
    from pipelines.ledger.store import Ledger
    from pipelines.models.fleet import Fleet
    from pipelines.runner.sources import Sources
    from pipelines.runner.staying import Stay
    from plugins.hookspecs import Settings
    from plugins.manager import Loaded
    from plugins.scenario import Scenario


#: Seconds that a run without rows has from its first word to its stay.
_BEGINNING = 5.0

#: Seconds that a run waits for a ledger that is away, to give back what it has not finished.
_OUTAGE = 120.0

#: How the run that stays in this process is told to leave; a process has one.
_ends: list[Callable[[], object]] = []


def carry(run_id: str, config: Config | None = None) -> Summary:
    """From events to drafts in the outbox and on to the FHIR server, for the rows of a run.

    Red flags are written at once, before the model is asked. Rows whose drafts an earlier run has computed are only
    written. What cannot go on now waits in the ledger for another run. When its rows are done the run stays for a while
    and takes further ones (`pipelines.runner.staying`).

    Raises:
        ConfigError: the configuration is wrong.
        LedgerError: the ledger does not answer; the rows are taken again by the next try.
    """
    import uvloop

    config = config or load()
    tracing.start(config.tracing, "task")
    try:
        return uvloop.run(_carry(run_id, config))
    finally:
        tracing.flush(config.tracing.flush)


async def carry_rows(
    config: Config,
    ledger: Ledger,
    run_id: str,
    *,
    loaded: Loaded,
    payloads: PayloadSource,
    sources: Sources,
    fleet: Fleet,
) -> Summary:
    """`carry` with its dependencies given."""
    from pipelines.ledger.states import State
    from pipelines.runner.inference import Inferring

    items = await called(ledger.claim, run_id, config.runner.lease)
    fail_point("runner.claimed")
    payloads.expect(item.event for item in items if item.state is not State.INFERRED)
    batch = _batch(config, ledger, run_id, items)
    infer = Inferring(config, ledger, batch, loaded, payloads, sources, fleet)
    usual = config.runner.concurrency
    stands = None if items else await called(ledger.stands, run_id, _BEGINNING)
    named = items[0].scenario if items else stands or ""
    asking = fleet.concurrency(named, usual)
    write = _writing(ledger, batch, sources)
    stay = None
    if (scenario := loaded.scenarios.get(named)) is not None and config.runner.stay:
        stay = _stay(
            config, ledger, batch, run_id, scenario, stands=not items, payloads=payloads, sources=sources, asking=asking
        )
    with _leaving(stay):
        try:
            outcomes, errors = await batch.work(infer, write, asking=asking, writing=usual, stay=stay)
        except LedgerError:  # its outage is no fault of a row's
            with suppress(LedgerError):
                await batch.give_back(_OUTAGE)
            raise
    return Summary(run_id, outcomes, errors)


def leave() -> None:
    """Let the run that stays in this process take no more; it ends when its rows are done. For a signal's handler."""
    if _ends:
        _ends[-1]()


def _stay(
    config: Config,
    ledger: Ledger,
    batch: Batch,
    run_id: str,
    scenario: Scenario[Any],
    *,
    stands: bool,
    payloads: PayloadSource,
    sources: Sources,
    asking: int,
) -> Stay:
    """What takes further rows."""
    from pipelines.ledger.states import State
    from pipelines.runner.staying import Stay

    def taken(more: Sequence[WorkItem]) -> None:
        payloads.expect(item.event for item in more if item.state is not State.INFERRED)

    def rested() -> None:
        payloads.forget()
        sources.forget()

    return Stay(
        config,
        ledger,
        batch,
        run_id,
        scenario.id,
        scenario.stage,
        asking=asking,
        stands=stands,
        taken=taken,
        rested=rested,
    )


@contextmanager
def _leaving(stay: Stay | None) -> Iterator[None]:
    """While inside, `leave` ends the stay."""
    if stay is None:
        yield
        return
    loop = asyncio.get_running_loop()
    _ends.append(lambda: loop.call_soon_threadsafe(stay.end))
    try:
        yield
    finally:
        _ends.pop()


def _writing(ledger: Ledger, batch: Batch, sources: Sources) -> Write:
    from pipelines.runner.recognition import recognised
    from pipelines.runner.write_back import send, unpack

    async def write(item: WorkItem) -> None:
        if (known := recognised(item.drafts)) is not None:
            await batch.turns.called(ledger.written, item, known)
            return
        outgoing = unpack(item.drafts or {})
        server = sources.of(item.event.source)
        fail_point("runner.sending")
        sent = await send(server.client, item.identity, outgoing, leave=batch.leave(item))
        if outgoing.drafts:
            batch.served(writing_of(item.event.source))
        fail_point("runner.sent")
        await batch.turns.called(ledger.written, item, sent.written)
        fail_point("runner.written")

    return write


async def _carry(run_id: str, config: Config) -> Summary:
    from pipelines.kafka.payloads import KafkaPayloads
    from pipelines.models.fleet import Fleet
    from pipelines.runner.sources import Sources
    from pipelines.telemetry.log_lines import be_discreet
    from plugins.manager import load as load_plugins

    hush(asyncio.get_running_loop())
    be_discreet()
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
        return await carry_rows(config, ledger, run_id, loaded=loaded, payloads=payloads, sources=sources, fleet=fleet)


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
