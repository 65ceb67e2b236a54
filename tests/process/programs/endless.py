"""Tests that never end, for `test_killed_runs` to run and kill. Each writes a file once its processes run."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from loadtest.sending.fleet import Fleet
from tests.process.server import running


def run_for_ever(name: str) -> None:
    Path(os.environ["ENDLESS_TESTS"], name).touch()
    while True:
        time.sleep(1000)


def test_with_a_server_of_processes() -> None:
    with running():
        run_for_ever("server")


def test_with_senders_and_a_pool() -> None:
    with (
        Fleet([("http://127.0.0.1:9", [])], senders=2),
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
    ):
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
        run_for_ever("pool")
