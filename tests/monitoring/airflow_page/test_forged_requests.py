"""A request that another page makes a browser send does nothing."""

from __future__ import annotations

from pipelines.ledger import Ledger
from tests.monitoring.airflow_page.page_parts import Enter


def test_a_request_from_elsewhere_does_nothing_though_the_cookie_is_there(logged_in: Enter, ledger: Ledger) -> None:
    uma = logged_in("uma")
    fields = {"kind": "everything", "name": "", "to": "off", "why": "x"}
    token, others = uma.token(), logged_in("ada").token()
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert uma.post("switch", fields, token=token, Origin=origin).status_code == 403, origin
    for forged in ("", "made-up", others):
        assert uma.post("switch", fields, token=forged).status_code == 403
    body = {"token": token, **fields}
    assert uma.client.post("/careloom/switch", data=body).status_code == 403  # no browser leaves out both headers
    origin = {"Origin": str(uma.client.base_url).rstrip("/")}
    assert uma.client.post("/careloom/switch", json=body, headers=origin).status_code == 415
    assert uma.client.post("/careloom/switch", data={"why": "x" * 70_000}, headers=origin).status_code == 413
    assert uma.client.get("/careloom/switch", params=body).status_code == 405
    assert ledger.switched_off() == []
    same = {"Sec-Fetch-Site": "same-origin"}
    assert uma.client.post("/careloom/switch", data=body, headers=same).status_code == 303
