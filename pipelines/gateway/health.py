"""What the gateway needs, and whether it has it."""

from __future__ import annotations

import asyncio
from typing import Literal

from sqlalchemy.exc import SQLAlchemyError

from pipelines.gateway.submission import Sink
from pipelines.ledger import Ledger

Part = Literal["up", "down"]


class Health:
    """Looks at Kafka and the ledger, never at a hospital: that one is down does not make the gateway unready."""

    def __init__(self, kafka: Sink, ledger: Ledger) -> None:
        self._kafka = kafka
        self._ledger = ledger

    async def parts(self) -> dict[str, Part]:
        """Each thing needed and whether it answers."""
        return {"kafka": "up" if self._kafka.connected else "down", "ledger": await self._ledger_part()}

    @staticmethod
    def can_take(parts: dict[str, Part]) -> bool:
        """Whether events can be taken: Kafka is enough, the ledger can catch up."""
        return parts["kafka"] == "up"

    async def _ledger_part(self) -> Part:
        try:
            async with asyncio.timeout(2):
                await asyncio.to_thread(self._ledger.known, [])
        except (SQLAlchemyError, TimeoutError):
            return "down"
        return "up"
