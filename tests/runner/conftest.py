"""The house that runs are tried in, and further models for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from pipelines.config import Airflow, Config, LedgerDatabase, Model, Runner, Source
from pipelines.ledger import Ledger
from tests.runner.fakes import BASE, FakeModel
from tests.runner.house import House


@pytest.fixture
def house(ledger_url: str, ledger_engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[House]:
    caplog.set_level(logging.DEBUG)
    config = Config(
        state_dir=tmp_path,
        locale="en",
        patient_salt=SecretStr("s"),
        sources=(
            Source(name="ward", fhir_version="R4", base_url=BASE, token=SecretStr("t")),
            Source(name="one-way", fhir_version="R4", token=SecretStr("t")),
        ),
        ledger=LedgerDatabase(url=SecretStr(ledger_url)),
        airflow=Airflow(password=SecretStr("p")),
        model=Model(name="fake-model", kind="fake", version="7", registration_number="备案-1"),
        runner=Runner(lease=30, stay=0),
    )
    # no test outlasts a backoff, on however slow a machine: `wake` ends them
    made = House(config, ledger_engine, Ledger(ledger_engine, max_attempts=3, backoff=30))
    made.fhir.put({"resourceType": "Patient", "id": "p1", "gender": "female"})
    yield made
    assert made.ledger.account().unaccounted == 0


@pytest.fixture
def models(house: House) -> Callable[..., dict[str, FakeModel]]:
    """`models("a", "b", routing={...})` configures fakes of these names; returns name -> fake."""

    def make(*names: str, routing: Mapping[str, Any], **more: Any) -> dict[str, FakeModel]:
        entries = tuple(Model(name=name, kind="fake", version=f"v-{name}", **more) for name in names)
        house.config = Config.model_validate(
            {**{k: getattr(house.config, k) for k in Config.model_fields}, "models": entries,
             "routing": routing}
        )  # fmt: skip
        house.others = {name: FakeModel() for name in names}
        return dict(house.others)

    return make
