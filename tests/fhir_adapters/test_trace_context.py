"""W3C trace context: what a sender may say, what is ignored, and what is made where it says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.trace_context import TraceContext, current, derived, outgoing, parse, state_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_a_senders_context_is_read_and_written_back_as_it_came() -> None:
    context = parse(GOOD, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
    assert context == TraceContext(TRACE, SPAN, True, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
    assert context.headers == {"traceparent": GOOD, "tracestate": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"}


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)])
def test_of_the_flags_only_the_lowest_bit_counts(flags: str, sampled: bool) -> None:
    context = parse(f"00-{TRACE}-{SPAN}-{flags}")
    assert context is not None
    assert context.sampled is sampled


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "garbage",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00_{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01.what",
        f" {GOOD}",
    ],
)
def test_what_is_no_traceparent_is_ignored_and_its_tracestate_with_it(wrong: str) -> None:
    assert parse(wrong, "rojo=1") is None


@pytest.mark.parametrize("later", [f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-the-future-says"])
def test_a_later_version_is_read_as_far_as_it_is_known_and_passed_on_as_version_00(later: str) -> None:
    context = parse(later)
    assert context is not None
    assert context.traceparent == GOOD


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        ("rojo=1", "rojo=1"),
        ("fw529a3039@dt=FfAYAAAAAAA", "fw529a3039@dt=FfAYAAAAAAA"),
        (" a=1 ,, b=2 ", "a=1 ,, b=2"),
        ("A=1", ""),
        ("a", ""),
        ("a=b=c", ""),
        ("a=名", ""),
        (",".join(f"k{n}=v" for n in range(32)), ",".join(f"k{n}=v" for n in range(32))),
        (",".join(f"k{n}=v" for n in range(33)), ""),
        (f"a={'x' * 256},b={'x' * 251}", ",".join((f"a={'x' * 256}", f"b={'x' * 251}"))),
        (f"a={'x' * 256},b={'x' * 252}", ""),
        (f"a={'x' * 257}", ""),
    ],
)
def test_a_tracestate_is_passed_on_or_left_out_whole(said: str, passed: str) -> None:
    assert state_of(said) == passed


@given(st.text(max_size=80), st.text(max_size=600))
def test_whatever_a_sender_says_what_is_passed_on_can_be_read_again(traceparent: str, tracestate: str) -> None:
    context = parse(traceparent, tracestate)
    if context is not None:
        assert parse(context.traceparent, context.state) == context


def test_an_event_whose_sender_has_no_trace_gets_the_same_one_however_often_it_comes() -> None:
    identity = "ab" * 32
    assert derived(identity) == derived(identity)
    assert parse(derived(identity).traceparent) == derived(identity)


def test_which_share_is_sampled_is_told_by_the_trace_id() -> None:
    low, high = f"{'1' * 16}{'0' * 15}1{'2' * 32}", f"{'1' * 16}{'f' * 16}{'2' * 32}"
    assert [derived(low, share).sampled for share in (0.0, 0.1, 1.0)] == [False, True, True]
    assert [derived(high, share).sampled for share in (0.0, 0.9, 1.0)] == [False, False, True]


def test_a_request_carries_what_the_running_task_works_on_and_nothing_without_it() -> None:
    assert outgoing() == {}
    token = current.set(parse(GOOD, "a=1"))
    try:
        assert outgoing() == {"traceparent": GOOD, "tracestate": "a=1"}
    finally:
        current.reset(token)
