"""Who may send: one bearer token per source, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable

from pipelines.config import Source

_SCHEME = "bearer "


class Doorkeeper:
    """Knows each source's token, and no more of it than a digest.

    A source that is not configured is met with the same work and the same answer as a wrong token, so that nobody
    learns from outside which sources there are.
    """

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = {source.name: source for source in sources}
        self._digests = {name: _digest(s.token.get_secret_value()) for name, s in self._sources.items()}
        self._nobody = _digest(secrets.token_urlsafe(32))

    def admit(self, name: str, authorization: str | None) -> Source | None:
        """The source of that name when the Authorization header (RFC 6750) carries its token, else None."""
        header = authorization or ""
        token = header[len(_SCHEME) :].strip() if header[: len(_SCHEME)].lower() == _SCHEME else ""
        right = hmac.compare_digest(_digest(token), self._digests.get(name, self._nobody))
        return self._sources.get(name) if right else None

    def label(self, name: str) -> str | None:
        """The name when it is a configured source's: what a stranger writes into a path never becomes a label."""
        return name if name in self._sources else None


def _digest(token: str) -> bytes:
    """Of equal length for every token, so that the comparison does not tell the length either."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
