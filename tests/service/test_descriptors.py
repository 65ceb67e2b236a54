"""When connections are refused for want of file descriptors, and how often the log says so."""

import logging
import resource

import pytest

from service.descriptors import Descriptors
from tests.service.requests.admission.test_admission import Clock


def test_the_last_descriptors_are_kept_and_the_log_says_so_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    descriptors = Descriptors(7, clock=clock)
    assert not caplog.records
    descriptors.limit = 100
    assert not descriptors.run_short(83)
    for seconds in (0, 59, 2, 1):
        clock.now_s += seconds
        assert descriptors.run_short(84)
        descriptors.warn(84)
    assert not descriptors.run_short(83)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "ulimit -n" in caplog.text
    assert "max_connections (7)" in caplog.text


def test_an_unlimited_system_never_runs_short(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: unlimited)
    assert not Descriptors(7).run_short(10**6)


def test_a_soft_limit_that_is_too_low_is_raised() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        limit = Descriptors(200).limit
        assert limit > 200
        assert Descriptors(200, processes=9).limit == limit + 9
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limit, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
