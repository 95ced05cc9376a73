"""A headless Chromium, driven over its own protocol (https://chromedevtools.github.io/devtools-protocol)."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

#: What Debian calls it.
PROGRAM = shutil.which("chromium")


class Browser:
    """One tab. Every call waits for its answer; what waits for the page does so for `patience` seconds at most."""

    def __init__(self, runner: asyncio.Runner, socket: aiohttp.ClientWebSocketResponse, patience: float = 60.0) -> None:
        self._runner, self._socket, self._patience = runner, socket, patience
        self._number = 0
        #: What the page's console has said: a refusal of its own Content-Security-Policy, or an error in a script.
        self.complaints: list[str] = []

    def call(self, method: str, **params: Any) -> Any:
        """One command of the protocol."""
        return self._runner.run(self._call(method, params))

    async def _call(self, method: str, params: dict[str, Any]) -> Any:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        async with asyncio.timeout(self._patience):
            while True:
                said = await self._socket.receive_json()
                if said.get("id") == self._number:
                    assert "error" not in said, said
                    return said["result"]
                self._listen(said)

    def _listen(self, said: dict[str, Any]) -> None:
        if said.get("method") == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
            self.complaints.append(said["params"]["entry"]["text"])
        if said.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(said["params"]["exceptionDetails"]))

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """What an expression in the page comes to."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Wait for an expression to be true."""
        end = time.monotonic() + self._patience
        while time.monotonic() < end:
            found = self.call("Runtime.evaluate", expression=f"Boolean({script})", returnByValue=True)
            if found["result"].get("value") is True:
                return
            time.sleep(0.1)
        raise AssertionError(f"never true: {script}\n{self.run('document.body.innerText')}")

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key by its name and its virtual code."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def picture(self, file: Path) -> None:
        """What is to be seen."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(width: int = 1600, height: int = 1200) -> Iterator[Browser]:
    """A browser with one empty tab, gone afterwards."""
    assert PROGRAM, "chromium is not installed: python3 scripts/bootstrap pictures"
    with TemporaryDirectory(prefix="careloom-browser-", ignore_cleanup_errors=True) as profile:
        command = [
            PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--hide-scrollbars", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = _port(Path(profile) / "DevToolsActivePort", process)
            with asyncio.Runner() as runner:
                session, socket = runner.run(_tab(port))
                try:
                    made = Browser(runner, socket)
                    for domain in ("Page", "Runtime", "Log"):
                        made.call(f"{domain}.enable")
                    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
                    made.call("Emulation.setDeviceMetricsOverride", **size)
                    yield made
                finally:
                    runner.run(socket.close())
                    runner.run(session.close())
        finally:
            process.terminate()
            process.wait(20)


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, "chromium ended at its start"
        if file.exists() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.1)
    raise AssertionError("chromium did not start")


async def _tab(port: int) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    session = aiohttp.ClientSession()
    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
        [tab] = [tab for tab in await answer.json() if tab["type"] == "page"]
    return session, await session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0)
