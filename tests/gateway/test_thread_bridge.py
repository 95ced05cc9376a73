"""What goes between an event loop and a thread is made once, in its order, with few wake-ups."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from pipelines.kafka.thread_bridge import ToLoop, ToThread


def test_calls_are_made_once_and_in_order_however_they_pile_up() -> None:
    made: list[int] = []
    with ThreadPoolExecutor(1) as executor:
        bridge = ToThread(executor)
        for n in range(10_000):
            bridge(lambda n=n: made.append(n))
    assert made == list(range(10_000))


def test_what_piles_up_behind_a_busy_thread_wakes_it_once() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Counting(ThreadPoolExecutor):
        submitted = 0

        def submit(self, *arguments):
            self.submitted += 1
            return super().submit(*arguments)

    made: list[int] = []
    with Counting(1) as executor:
        bridge = ToThread(executor)
        bridge(lambda: (begun.set(), go_on.wait(10)))
        assert begun.wait(10)
        for n in range(100):
            bridge(lambda n=n: made.append(n))
        go_on.set()
    assert made == list(range(100))
    assert executor.submitted == 2


def test_every_future_is_settled_from_threads_that_answer_at_once() -> None:
    async def run() -> list[object]:
        loop = asyncio.get_running_loop()
        bridge = ToLoop(loop)
        futures = [loop.create_future() for _ in range(4_000)]

        def answer(which: int) -> None:
            for n in range(which, len(futures), 4):
                bridge.answer(futures[n], None, n)

        threads = [threading.Thread(target=answer, args=(which,)) for which in range(4)]
        for thread in threads:
            thread.start()
        return await asyncio.wait_for(asyncio.gather(*futures), 30)

    assert asyncio.run(run()) == list(range(4_000))


def test_an_error_is_raised_where_it_is_awaited_and_a_cancelled_future_is_left_alone() -> None:
    async def run() -> object:
        loop = asyncio.get_running_loop()
        bridge = ToLoop(loop)
        given_up, failed = loop.create_future(), loop.create_future()
        given_up.cancel()
        bridge.answer(given_up, None, 1)
        bridge.answer(failed, ValueError("told"))
        return (await asyncio.gather(failed, return_exceptions=True))[0]

    assert str(asyncio.run(run())) == "told"


def test_an_answer_after_the_loop_has_closed_is_dropped() -> None:
    loop = asyncio.new_event_loop()
    bridge, future = ToLoop(loop), loop.create_future()
    loop.close()
    bridge.answer(future, None, 1)
    assert not future.done()
