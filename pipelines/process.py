"""What careloom's long-lived processes do alike: errors told without patient data, and a clean end at SIGTERM."""

from __future__ import annotations

import logging
import signal
import threading
import traceback
from collections.abc import Callable, Iterable
from types import FrameType

from fhir_adapters.errors import AdapterError
from pipelines.errors import CareloomError
from plugins.errors import PluginError

log = logging.getLogger(__name__)

#: Errors whose messages are our own and hold no patient data. Of all others only the class is written down.
_OURS = (CareloomError, AdapterError, PluginError)


def describe(error: BaseException) -> str:
    """An error in a form that holds no patient data: our own messages whole, of others the class alone."""
    return f"{type(error).__name__}: {error}" if isinstance(error, _OURS) else type(error).__name__


def stop_at_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set; who works finishes the step at hand and looks at it. Main thread only."""
    stop = threading.Event()

    def note(number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
    return stop


def run_threads(stop: threading.Event, targets: Iterable[tuple[str, Callable[[], None]]]) -> bool:
    """Run each target in a thread of its own until all have ended; where one breaks, the others are asked to stop.

    Args:
        stop: the targets return soon after it is set.
        targets: name and function of each.

    Returns:
        whether all of them ended because they were asked to.
    """
    broken = threading.Event()

    def guarded(name: str, target: Callable[[], None]) -> None:
        try:
            target()
            if not stop.is_set():
                log.error("%s ended by itself", name)
                broken.set()
        except Exception as error:  # converted: the process ends and is started anew, as half of it helps nobody
            log.critical("%s broke", name, exc_info=error)
            broken.set()
        finally:
            stop.set()

    threads = [threading.Thread(target=guarded, args=target, name=target[0]) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return not broken.is_set()


def places(error: BaseException) -> list[str]:
    """Where an error was raised and came through, the innermost first: "file:line function"."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames)]
