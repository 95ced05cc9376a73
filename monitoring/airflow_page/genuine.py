"""Whether a request that changes something comes from our own page: its origin, and a token that only the page has.

Airflow's cookie is SameSite=Lax, which another host of the same site gets past; so both are asked for, of everybody.
"""

from __future__ import annotations

from collections.abc import Collection

from fastapi import HTTPException, Request, status
from itsdangerous import BadSignature, URLSafeTimedSerializer

#: Seconds that a page may lie open before it is acted on.
LIFE = 12 * 3600
_SALT = "careloom.airflow-page"


class Tokens:
    """Tokens of forms, each for one person.

    Args:
        key: that all workers of the API server share.
    """

    def __init__(self, key: str) -> None:
        self._serializer = URLSafeTimedSerializer(key, salt=_SALT)

    def make(self, who: str) -> str:
        """A token for this person's forms."""
        return self._serializer.dumps(who)

    def fits(self, token: str, who: str) -> bool:
        """Whether it is theirs and not too old."""
        try:
            return bool(self._serializer.loads(token, max_age=LIFE) == who)
        except BadSignature:
            return False


def check(request: Request, own_origins: Collection[str], tokens: Tokens, token: str, who: str) -> None:
    """Let a request that changes something pass.

    Args:
        request: the request.
        own_origins: under which this Airflow is reached.
        tokens: of this API server.
        token: what the form brought.
        who: whom Airflow knows the request by.

    Raises:
        HTTPException: 403, it is not from our page, or that has lain open for too long.
    """
    origin = request.headers.get("origin")
    if origin is None and request.headers.get("sec-fetch-site") == "same-origin":
        origin = next(iter(own_origins))
    if origin not in own_origins:
        raise HTTPException(
            status.HTTP_403_FORBIDDEN,
            "This request did not come from this page. Behind a proxy, [api] base_url must name the address that people"
            " use.",
        )
    if not tokens.fits(token, who):
        raise HTTPException(
            status.HTTP_403_FORBIDDEN, "The page has lain open for too long, or under another login. Load it again."
        )
