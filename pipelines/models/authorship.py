"""What the models that answered together are called: one author on the drafts, one label in metrics."""

from __future__ import annotations

from collections.abc import Iterable


def name_of(models: Iterable[str]) -> str:
    """The names, joined."""
    return "+".join(models)


def version_of(models: Iterable[tuple[str, str]]) -> str:
    """Each name with the version of its weights."""
    return "; ".join(f"{name} {version}" for name, version in models)
