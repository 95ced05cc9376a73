"""What guards and panels found stands in every draft of the model, whether or not the scenario shows it itself."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence

from plugins.fhir_text import Line, cited, narrative
from plugins.scenario import Draft, Finding, Locale, Text

_TITLE = Text(zh="AI 内容核查提示", en="What was found wrong with the AI's answer")
_END = "</div>"


def with_notices(drafts: Iterable[Draft], notices: Sequence[Finding], locale: Locale) -> tuple[Draft, ...]:
    """The drafts, each with those notices in its narrative that it does not show yet.

    Args:
        drafts: as the scenario made them; they are not changed.
        notices: findings of guards and of the panel.
        locale: language of the drafts.
    """
    return tuple(_with(draft, notices, locale) for draft in drafts)


def _with(draft: Draft, notices: Sequence[Finding], locale: Locale) -> Draft:
    shown = json.dumps(draft.resource, ensure_ascii=False, default=str)
    missing = [notice for notice in notices if not _stands(notice.text.in_(locale), shown)]
    if not missing:
        return draft
    lines = [Line(notice.text.in_(locale), cited(notice.sources)) for notice in missing]
    added = narrative([(_TITLE.in_(locale), lines)], locale)
    before = draft.resource.get("text")
    if isinstance(before, dict) and str(before.get("div", "")).endswith(_END):
        inner = added["div"].partition(">")[2]
        added = {"status": "additional", "div": before["div"].removesuffix(_END) + inner}
    return Draft(draft.name, {**draft.resource, "text": added}, draft.sources)


def _stands(text: str, shown: str) -> bool:
    """Whether a text is shown, plain or escaped as XHTML, in a resource's JSON."""
    return any(json.dumps(form, ensure_ascii=False)[1:-1] in shown for form in (text, html.escape(text, quote=True)))
