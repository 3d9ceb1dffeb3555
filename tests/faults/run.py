"""Runs rounds of faults against the whole pipeline and checks that nothing is lost.

    make faults ROUNDS=300 SEED=1
    python -m tests.faults.run --rounds 50 --delivery exactly_once --brokers 3
    python -m tests.faults.run --rounds 20 --only "scorer killed" --only "broker killed"

Ends with a table and one line of JSON; exit code 1 if anything was lost, out of order, or (exactly once) doubled.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.faults.checker import Checker, Verdict
from tests.faults.cluster import IN_FLIGHT, Cluster
from tests.real_kafka import missing

SETTLE_S = 180.0
_SNAPSHOT_S = 1.0


class Watch(threading.Thread):
    """Takes the checker's snapshots of what is committed."""

    def __init__(self, checker: Checker) -> None:
        super().__init__(daemon=True)
        self._checker = checker
        self._ended = threading.Event()
        self.lock = threading.Lock()

    def run(self) -> None:
        while not self._ended.wait(_SNAPSHOT_S):
            with self.lock:
                try:
                    self._checker.snapshot()
                except Exception as error:  # a broker is away
                    print(f"no snapshot: {error}", file=sys.stderr)

    def end(self) -> None:
        self._ended.set()
        self.join()


def settle(cluster: Cluster, checker: Checker, watch: Watch, within_s: float = SETTLE_S) -> Verdict:
    """Stop the load, and return the verdict as soon as nothing is missing, or after `within_s`."""
    cluster.load.pause()
    deadline = time.monotonic() + within_s
    while True:
        cluster.revive()
        with watch.lock:
            verdict = checker.verdict()
        if not (verdict.lost or verdict.older_won or verdict.hints_lost) or time.monotonic() > deadline:
            return verdict
        time.sleep(1)


def run_rounds(
    cluster: Cluster,
    rounds: int,
    seed: int,
    only: tuple[str, ...] = (),
    check_every: int = 25,
    on_round: Callable[[str], None] = lambda _: None,
) -> tuple[Verdict, Counter[str]]:
    """Inject `rounds` faults, each at a random time under load; return the verdict and how often each fault came.

    Every kind comes equally often, in random order. Stops early when the checker has found something.
    """
    chance = random.Random(seed)
    kinds = list(only or cluster.faults)
    plan = [kinds[i % len(kinds)] for i in range(rounds)]
    chance.shuffle(plan)
    done: Counter[str] = Counter()
    checker = Checker(cluster.settings)
    watch = Watch(checker)
    watch.start()
    verdict = Verdict()
    try:
        for number, kind in enumerate(plan, 1):
            cluster.load.resume()
            time.sleep(chance.uniform(0.2, 1.5))
            cluster.faults[kind](chance)
            cluster.revive()
            done[kind] += 1
            on_round(kind)
            if number % check_every == 0 or number == rounds:
                verdict = settle(cluster, checker, watch)
                if problems(verdict, cluster):
                    break
    finally:
        watch.end()
        checker.close()
    return verdict, done


def problems(verdict: Verdict, cluster: Cluster) -> list[str]:
    """Return what must not be. A suspended scorer may do once more what it had in flight, when at least once."""
    found = [*verdict.lost, *verdict.older_won, *verdict.out_of_order, *verdict.hints_lost]
    if found:
        print(*cluster.exits, *(f"{s.name}: {s.health()}" for s in cluster.scorers), sep="\n", file=sys.stderr)
    if cluster.settings.delivery == "exactly_once":
        found += [*verdict.duplicated, *verdict.handled_again]
    elif len(verdict.handled_again) > IN_FLIGHT * cluster.suspensions:
        found += verdict.handled_again
    return found


@click.command()
@click.option("--rounds", default=50, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--brokers", default=3, show_default=True)
@click.option("--rate", default=30.0, show_default=True, help="events a second")
@click.option("--delivery", type=click.Choice(["at_least_once", "exactly_once"]), default="at_least_once")
@click.option("--only", multiple=True, help="a kind of fault; may be repeated")
@click.option("--check-every", default=25, show_default=True, help="rounds between two checks")
@click.option("--logs", type=click.Path(path_type=Path), help="keep the logs of the scorers and the hints app here")
def main(
    rounds: int,
    seed: int,
    brokers: int,
    rate: float,
    delivery: str,
    only: tuple[str, ...],
    check_every: int,
    logs: Path | None,
) -> None:
    """Inject faults into the whole pipeline under load, and check that nothing is lost."""
    if problem := missing():
        raise click.ClickException(problem)
    started = time.monotonic()
    with Cluster(brokers, delivery, seed, rate) as cluster:
        if unknown := set(only) - set(cluster.faults):
            raise click.ClickException(f"no fault {sorted(unknown)}: one of {', '.join(cluster.faults)}")
        cluster.start()
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("rounds", total=rounds)

            def on_round(kind: str) -> None:
                progress.update(bar, advance=1)
                progress.log(kind)

            verdict, done = run_rounds(cluster, rounds, seed, only, check_every, on_round)
        found = problems(verdict, cluster)
        if logs:
            logs.mkdir(parents=True, exist_ok=True)
            for number, process in enumerate((*cluster.scorers, cluster.hints)):
                shutil.copy(process.log, logs / f"{process.name}-{number}.txt")
    table = Table("fault", "rounds")
    for kind, count in sorted(done.items()):
        table.add_row(kind, str(count))
    Console().print(table)
    figures = verdict.figures()
    table = Table(*figures)
    table.add_row(*map(str, figures.values()))
    Console().print(table)
    for line in found[:20]:
        print(line, file=sys.stderr)
    seconds = round(time.monotonic() - started)
    summary = {"rounds": done.total(), "seed": seed, "delivery": delivery, "brokers": brokers, "seconds": seconds}
    print(json.dumps({**summary, "suspensions": cluster.suspensions, **figures, "faults": dict(done)}))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
