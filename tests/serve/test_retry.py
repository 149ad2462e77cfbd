"""Back-off and judgement without a network: plans are driven by hand, with a clock of their own."""

import json
from email.utils import formatdate

import pytest

from everlearn.core.errors import ArgumentError, ServeError
from everlearn.serve.retry import Reply, Request, Retries, Wait, problem, retry_after

GET = Request("GET", "/v1/status")
ORDER = Request("POST", "/v1/rollback", repeatable=False)
AWAY = Reply(fault="Connection refused", sent=False)
LOST = Reply(fault="connection reset")


def answer(status, value, **headers):
    return Reply(status, {name.replace("_", "-"): text for name, text in headers.items()}, json.dumps(value).encode())


def refusal(status, code, **headers):
    return answer(status, {"code": code, "detail": f"no: {code}"}, **headers)


class Drive:
    """Answers a plan's requests from a list (the last one for ever), and lets its clock run by the pauses."""

    def __init__(self, *replies, each=0.0, **settings):
        self.now, self.pauses, self.sent, self.replies, self.each = 0.0, [], [], list(replies), each
        self.retries = Retries(clock=lambda: self.now, **{"seed": 1, **settings})

    def __call__(self, request=GET, read=lambda value: value):
        plan = self.retries.ask(request, read)
        try:
            step = next(plan)
            while True:
                if isinstance(step, Wait):
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
                    step = plan.send(None)
                else:
                    self.sent.append(step)
                    self.now += self.each
                    step = plan.send(self.replies.pop(0) if len(self.replies) > 1 else self.replies[0])
        except StopIteration as end:
            return end.value


def test_an_answer_comes_through_and_is_asked_for_once():
    drive = Drive(answer(200, {"version": 7}))
    assert drive() == {"version": 7}
    assert len(drive.sent) == 1


REPEATED = [
    AWAY,
    LOST,
    refusal(429, "overloaded"),
    refusal(503, "not_ready"),
    refusal(409, "in_progress"),
    refusal(408, "request_timeout"),
    Reply(502, {}, b"<html>bad gateway</html>"),
    Reply(200, {}, b"<html>welcome</html>"),
    Reply(200, {}, b'{"half":'),
]


@pytest.mark.parametrize("reply", REPEATED, ids=lambda reply: f"{reply.status}{reply.fault}{reply.content[:9]}")
def test_what_another_try_can_help_is_tried_again(reply):
    drive = Drive(reply, reply, answer(200, 5))
    assert drive() == 5
    assert len(drive.sent) == 3
    assert len(drive.pauses) == 2


FINAL = [
    refusal(422, "conflict"),
    refusal(422, "invalid_request", retry_after="1"),
    refusal(409, "version_pruned"),
    refusal(410, "horizon_passed"),
    refusal(401, "unauthorized"),
    refusal(404, "unknown_id"),
    refusal(500, "internal"),
    Reply(301, {}, b""),
]


@pytest.mark.parametrize("reply", FINAL, ids=lambda reply: f"{reply.status}{reply.content[:24]}")
def test_what_will_not_change_is_not_tried_again(reply):
    drive = Drive(reply)
    with pytest.raises(ServeError) as caught:
        drive()
    assert len(drive.sent) == 1
    assert caught.value.status == reply.status


@pytest.mark.parametrize(
    ("reply", "tries"),
    [
        (LOST, 1),
        (AWAY, 7),
        (refusal(503, "not_ready"), 7),
        (refusal(429, "overloaded"), 7),
        (Reply(503, {}, b"proxy"), 1),
        (Reply(502, {}, b"proxy"), 1),
        (Reply(200, {}, b"<html>"), 1),
    ],
)
def test_an_order_is_repeated_only_where_it_was_not_done(reply, tries):
    drive = Drive(reply)
    with pytest.raises(ServeError) as caught:
        drive(ORDER)
    assert len(drive.sent) == tries
    assert ("may have been done" in str(caught.value)) == (reply is LOST)


def test_pauses_are_drawn_from_a_span_that_doubles_up_to_a_longest():
    retries = Retries(seed=3, first=0.1, longest=1.0)
    for number, span in enumerate([0.1, 0.2, 0.4, 0.8, 1.0, 1.0]):
        drawn = sorted(retries.pause(number) for _ in range(2000))
        assert 0.0 <= drawn[0] < 0.02 * span
        assert 0.98 * span < drawn[-1] <= span
        assert sum(drawn) / 2000 == pytest.approx(span / 2, rel=0.06)  # 3 deviations of the mean of 2000 uniform draws: 4 %
    assert retries.pause(10_000) <= 1.0


def test_a_seed_repeats_the_pauses_and_none_does_not():
    def drawn(seed):
        return [Retries(seed=seed).pause(number) for number in range(5)]

    assert drawn(4) == drawn(4) != drawn(5)
    assert drawn(None) != drawn(None)


def test_what_the_server_asks_for_is_waited_for():
    drive = Drive(refusal(429, "rate_limited", retry_after="2"), answer(200, 1))
    assert drive() == 1
    assert 2.0 <= drive.pauses[0] <= 2.1


def test_a_pause_that_would_outlast_the_deadline_is_not_begun():
    drive = Drive(refusal(429, "rate_limited", retry_after="60"), deadline=30.0)
    with pytest.raises(ServeError) as caught:
        drive()
    assert drive.pauses == []
    assert caught.value.retry_after == 60.0


def test_the_deadline_ends_a_call_and_shortens_its_last_try():
    drive = Drive(LOST, each=4.0, deadline=10.0, retries=100, timeout=4.0)
    with pytest.raises(ServeError, match="no answer"):
        drive()
    assert len(drive.sent) == 3
    assert drive.sent[0].timeout == 4.0
    assert 0.0 < drive.sent[2].timeout < 2.0


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_retries_counts_the_tries_after_the_first(retries):
    drive = Drive(AWAY, retries=retries, deadline=1e6)
    with pytest.raises(ServeError) as caught:
        drive()
    assert (caught.value.code, caught.value.status) == ("unreachable", 0)
    assert "GET /v1/status" in str(caught.value)
    assert "Connection refused" in str(caught.value)
    assert len(drive.sent) == retries + 1


def test_an_answer_that_reads_as_nothing_is_none_of_this_api():
    def read(value):
        return value["id"]

    drive = Drive(answer(200, [1]), retries=1)
    with pytest.raises(ServeError, match=r"200 and '\[1\]'") as caught:
        drive(read=read)
    assert caught.value.code == "unexpected_answer"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 0.25 "}, 0.25),
        ({"retry-after": "-4"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
        ({"retry-after": formatdate(1_000_007.0, usegmt=True), "date": formatdate(1_000_000.0, usegmt=True)}, 7.0),
        ({"retry-after": formatdate(1_000_007.0, usegmt=True)}, 0.0),
    ],
)
def test_retry_after_is_read_in_seconds_or_as_a_date_by_the_servers_clock(headers, seconds):
    assert retry_after(headers) == seconds


def test_a_problem_becomes_an_error_with_its_code_and_places():
    body = {"code": "conflict", "detail": "other row", "errors": [{"at": "x[3]", "detail": "nan"}, 5]}
    found = problem(answer(422, body))
    assert (found.code, str(found), found.status, found.errors) == (
        "conflict",
        "other row",
        422,
        [{"at": "x[3]", "detail": "nan"}],
    )
    assert problem(answer(422, {"code": 5})) is None
    assert problem(answer(422, ["code"])) is None
    assert problem(Reply(422, {}, b"[" * 100_000)) is None
    assert problem(Reply(422, {}, b"\xff\xfe")) is None


@pytest.mark.parametrize(("name", "value"), [("timeout", 0), ("retries", -1), ("retries", 1.5), ("deadline", float("nan"))])
def test_limits_that_cannot_be_kept_are_refused(name, value):
    with pytest.raises(ArgumentError, match=f"client: {name}"):
        Retries(**{name: value})
