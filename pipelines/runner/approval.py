"""Whether a person is asked to decide on a scenario's drafts, and in which words."""

from __future__ import annotations

from typing import Any

from plugins.scenario import Autonomy, Locale, Scenario, Text

_LEAD = Text(zh="请审核 AI 草稿,接受、修改或拒绝: ", en="Please accept, edit or reject this AI draft: ")


def wording(scenario: Scenario[Any], locale: Locale) -> str | None:
    """What stands in the Task that asks for it, without a word of the record; None where advice is all that is given.

    Args:
        scenario: whose drafts they are.
        locale: language of the house.
    """
    if scenario.autonomy is Autonomy.ADVISE:
        return None
    return f"{_LEAD.in_(locale)}{scenario.title.in_(locale)}"
