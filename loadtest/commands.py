"""The three commands: each reads its options, sends the load, writes reports and returns an exit status.

It computes no figure.
"""

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from loadtest.checks import check_arrivals, check_files, check_forms
from loadtest.errors import UsageError
from loadtest.options import adapter_of, arrivals_of, corpus_of, timing_of
from loadtest.reports import html, json, text
from loadtest.runs.compare import Side, compare, take_turns
from loadtest.runs.gate import METRICS, Gate
from loadtest.runs.run import Runner, RunResult, Timing
from loadtest.runs.summary import Frame
from loadtest.runs.sweep import Plan, Step, Sweep
from loadtest.sending.fleet import Fleet, senders_for
from loadtest.sending.live import Live
from loadtest.sending.probe import base_url
from loadtest.sending.records import Records
from loadtest.sending.sender import Tally
from loadtest.sending.target import Target, prepare
from loadtest.traffic.corpus import Corpus

_OK, _MET, _INTERRUPTED = 0, 1, 130
# Without --to a sweep has no highest rate. It starts senders for this many requests a second, about what a server on
# one machine is likely to bear.
_SWEEP_RATE = 400.0


class Console:
    """Writes results to `out` and progress to `err`."""

    def __init__(self, out: TextIO, err: TextIO, *, quiet: bool) -> None:
        self.out = out
        self.err = err
        self._quiet = quiet

    def making(self, done: int, total: int) -> None:
        """Counts the requests as they are made, on one line of a terminal."""
        if self.err.isatty() and not self._quiet:
            self.err.write(f"\rmaking requests: {done + 1} of {total}" + ("\n" if done + 1 == total else ""))
            self.err.flush()

    @contextmanager
    def watching(self, title: str, duration_s: float) -> Iterator[Any]:
        """A live display that disappears when the load ends. If quiet, there is none."""
        if self._quiet:
            yield _ignore
            return
        live = Live(self.err, title=title, duration_s=duration_s)
        try:
            yield live
        finally:
            live.close()

    def tell(self, line: str) -> None:
        self.err.write(line + "\n")
        self.err.flush()

    def save(self, args: argparse.Namespace, document: dict[str, Any], page: str) -> None:
        if args.json is not None:
            json.write(args.json, document)
            self.tell(f"wrote {args.json}")
        if args.html is not None:
            args.html.write_text(page, encoding="utf-8")
            self.tell(f"wrote {args.html}")


def _ignore(tally: Tally) -> None:
    """Shows nothing."""


def run_command(args: argparse.Namespace, console: Console) -> int:
    if relative := [gate.text for gate in args.fail_if if gate.relative]:
        raise UsageError(f"--fail-if '{relative[0]}': a ratio needs compare")
    check_arrivals(args)
    timing = timing_of(args, ramp_s=args.ramp, warmup_s=args.warmup)
    _check_writable(args)
    corpus, target, info = _ready(args, console)
    senders = args.senders or senders_for(args.rate or 0, args.concurrency or 0)
    with Fleet([(target.url, target.wires)], senders=senders) as fleet:
        runner = Runner(target, corpus, fleet, slo_ms=args.slo_ms, info=info)
        with console.watching("loadtest", timing.duration_s) as watch:
            result = runner.run(timing, on_progress=watch)
    console.out.write(text.run_text(result))
    console.save(args, json.run_document(result), html.run_page(result))
    met = [_is_met(gate, result, console) for gate in args.fail_if]
    if result.interrupted_at_s is not None:
        return _INTERRUPTED
    return _MET if any(met) else _OK


def _is_met(gate: Gate, result: RunResult, console: Console) -> bool:
    value = METRICS[gate.metric](result.summary)
    outcome = "met" if gate.met_by(value) else "clear"
    console.out.write(f"--fail-if '{gate.text}': {outcome} ({gate.metric} is {value:.4g})\n")
    return gate.met_by(value)


def sweep_command(args: argparse.Namespace, console: Console) -> int:
    check_arrivals(args)
    _check_writable(args)
    corpus, target, info = _ready(args, console)
    timing = Timing(
        rate=args.start,
        concurrency=None,
        duration_s=args.step,
        **arrivals_of(args),
        timeout_s=args.timeout,
        max_in_flight=args.max_in_flight,
        seed=args.seed,
    )
    senders = args.senders or senders_for(args.stop or _SWEEP_RATE, 0)
    with Fleet([(target.url, target.wires)], senders=senders) as fleet:
        runner = Runner(target, corpus, fleet, slo_ms=args.slo_ms, info=info)

        def run_at(rate: float) -> RunResult:
            with console.watching(f"{rate:.4g}/s", args.step) as watch:
                return runner.run(replace(timing, rate=rate), on_progress=watch)

        plan = Plan(args.start, args.factor, args.tolerance, args.stop)
        result = Sweep(plan, run_at, lambda step: console.tell(_step_line(step))).run()
    console.out.write(text.sweep_text(result))
    console.save(args, json.sweep_document(result), html.sweep_page(result))
    return _INTERRUPTED if result.last.interrupted_at_s is not None else _OK


def _step_line(step: Step) -> str:
    latency = step.summary.latency_ms
    verdict = step.verdict.reason or "held"
    return f"{step.rate:.4g}/s: p50 {latency.p50:,.0f} ms, p99 {latency.p99:,.0f} ms: {verdict}"


def compare_command(args: argparse.Namespace, console: Console) -> int:
    are_urls = ["://" in side for side in (args.base, args.other)]
    if are_urls[0] != are_urls[1]:
        raise UsageError("compare takes two URLs or two result files, not one of each")
    _check_writable(args)
    interrupted = False
    if are_urls[0]:
        base, other, interrupted = _measure_both(args, console)
    else:
        check_files(args)
        base, other = json.read_side(Path(args.base)), json.read_side(Path(args.other))
    result = compare(base, other, seed=args.seed, confidence=args.confidence)
    judged = [result.judge(gate) for gate in args.fail_if]
    console.out.write(text.compare_text(result, judged))
    console.save(args, json.compare_document(result, judged), html.compare_page(result, judged))
    if interrupted:
        return _INTERRUPTED
    failing = {"met", "undecided"} if args.undecided == "fail" else {"met"}
    return _MET if any(each.outcome in failing for each in judged) else _OK


def _measure_both(args: argparse.Namespace, console: Console) -> tuple[Side, Side, bool]:
    """Measures both servers in turns with the same requests. The flag says whether Ctrl-C ended it."""
    check_arrivals(args)
    timing = timing_of(args)
    adapters = [(base_url(args.base), adapter_of(args)), (base_url(args.other), adapter_of(args, "b_"))]
    check_forms(args, [adapter.form for _, adapter in adapters])
    corpus = corpus_of(args, console.making)
    targets = [prepare(url, adapter, corpus, timeout_s=args.timeout) for url, adapter in adapters]
    for target in targets:
        asyncio.run(target.try_out(corpus))
    round_s = args.duration / args.rounds
    loads = timing.load(corpus).rounds(args.rounds)
    senders = args.senders or senders_for(args.rate or 0, args.concurrency or 0)
    with Fleet([(target.url, target.wires) for target in targets], senders=senders) as fleet:

        def measure(number: int, side: int) -> Records | None:
            title = f"round {number + 1} of {args.rounds}, {'AB'[side]}"
            with console.watching(title, round_s) as watch:
                outcome = fleet.run(loads[number], target=side, on_progress=watch)
            return outcome.records if outcome.interrupted_at_s is None else None

        rounds = take_turns(args.rounds, measure)
    if not rounds[0]:
        raise KeyboardInterrupt
    frame = replace(timing, duration_s=len(rounds[0]) * round_s).frame(corpus.classes, args.slo_ms)
    base, other = (_side(*each, frame, round_s) for each in zip(targets, rounds, strict=True))
    return base, other, len(rounds[0]) < args.rounds


def _side(target: Target, rounds: Sequence[Records], frame: Frame, round_s: float) -> Side:
    label = f"{target.url}{target.adapter.route} ({target.adapter.form})"
    return Side(label, frame, "the same", rounds, round_s, [len(wire.body) for wire in target.wires])


def _ready(args: argparse.Namespace, console: Console) -> tuple[Corpus, Target, dict[str, Any]]:
    """Makes the requests, sends the server one of each class, and asks it what it is."""
    base_url(args.url)
    adapter = adapter_of(args)
    check_forms(args, [adapter.form])
    corpus = corpus_of(args, console.making)
    target = prepare(args.url, adapter, corpus, timeout_s=args.timeout)
    return corpus, target, asyncio.run(target.try_out(corpus))


def _check_writable(args: argparse.Namespace) -> None:
    """Refuses a missing folder before the run, not after it."""
    for path in (args.json, args.html):
        if path is not None and not path.parent.is_dir():
            raise UsageError(f"{path}: there is no folder {path.parent}")
