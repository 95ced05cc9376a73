"""What is done to a ward's letters: scenarios with few events, which are due soon."""

from __future__ import annotations

import re
import time

from tests.fault_table import letters
from tests.fault_table.fault import Do
from tests.fault_table.flow import Flow
from tests.fault_table.house import BATCH, MAX_WAITING, House

#: Seconds that the FHIR server takes to write a late one, and between two that are in time.
_LATE, _SOON = 24, 0.2
_sent: list[Flow] = []


def late(ward: str, *, every: float, one_in: int) -> Do:
    """Letters of a ward are due, and the FHIR server takes its time with one in so many (0: with none)."""

    def send(house: House) -> None:
        house.front("")
        _sent.append(
            Flow(lambda n: house.hospital.letter(ward, late=_LATE if one_in and n % one_in == 0 else 0), every)
        )

    return send


def in_time(ward: str, letters: int) -> Do:
    """The FHIR server is quick again, and so many letters come in time."""

    def mend(house: House) -> None:
        if not _sent:
            return
        _sent.pop().close()
        house.front("")
        for _ in range(letters):
            house.hospital.letter(ward)
            time.sleep(_SOON)

    return mend


def never_written(ward: str) -> Do:
    """The FHIR server lets one letter wait, and says so by a byte now and then: no time limit is over."""

    def send(house: House) -> None:
        house.front("")
        house.hospital.letter(ward, late=86_400)

    return send


def flood(house: House) -> None:
    """Somebody sends a patient's whole history: one after the other, and more than may wait beside what runs hold."""
    house.front("")
    patient = house.hospital.register("written-after-10-archived")
    for _ in range(MAX_WAITING + 2 * BATCH):
        house.hospital.letter(letters.ARCHIVE, patient=patient)


def leave_out(house: House) -> None:
    """An upgrade: the dispatcher comes back without a scenario of which there is work."""
    house.front("")
    patient = house.hospital.register("written-after-25-waiting")
    for _ in range(8):
        house.hospital.letter(letters.ARCHIVE, patient=patient)
    archived = f"SELECT count(*) FROM work WHERE state = 'waiting' AND scenario = '{letters.scenario(letters.ARCHIVE)}'"
    if house.wait(lambda: house.count(archived) > 5, 30) is None:
        raise AssertionError("no letter of the archive came to wait")
    _configure(house, f'enabled = ["letters"]\ndisabled_scenarios = ["{letters.scenario(letters.ARCHIVE)}"]')


def take_back_in(house: House) -> None:
    house.front("quick")
    _configure(house, 'enabled = ["letters"]')


def _configure(house: House, plugins: str) -> None:
    text = house.stack.config.read_text("utf-8")
    wanted = re.sub(r'enabled = \["letters"\](\ndisabled_scenarios = .*)?', plugins, text)
    if wanted != text:
        house.stack.config.write_text(wanted, "utf-8")
        house.stack.restart("dispatcher")
