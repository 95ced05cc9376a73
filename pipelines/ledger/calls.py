"""The ledger's blocking verbs, called from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from pipelines.errors import LedgerError

_T = TypeVar("_T")


async def called(function: Callable[..., _T], *arguments: Any, **named: Any) -> _T:
    """A blocking ledger call, off the event loop.

    Raises:
        LedgerError: the ledger does not answer. A driver's own message may quote values, so it is left behind.
    """
    try:
        return await asyncio.to_thread(function, *arguments, **named)
    except SQLAlchemyError as error:
        cause = type(getattr(error, "orig", None) or error).__name__
        raise LedgerError(f"the ledger did not do {getattr(function, '__name__', 'a call')} ({cause})") from None
