"""The knowledge API: where passages come from. The built-in source indexes documents in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from plugins.scenario import Locale, Passage


class KnowledgeSource(Protocol):
    """Something that finds passages; return one from `careloom_knowledge`."""

    #: Lower-case words with hyphens, unique; a metric label.
    id: str

    def search(self, question: str, *, locale: Locale, cap: int) -> Sequence[Passage]:
        """At most `cap` passages that bear on the question, best first; empty where nothing does.

        Called by the runner in a worker thread; it may read local files and nothing else.
        """
        ...
