"""The whole pipeline in processes, under load, and the faults that can be done to it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from schemas import ListingEventType
from stream.demo.process import PipelineProcess
from stream.embedded.redis import EmbeddedRedis
from stream.embedded.server import Server, free_port
from stream.embedded.triton import EmbeddedTriton
from stream.kafka import client_config
from stream.publish import event_of
from stream.settings import Settings, load
from tests.failing_model import failing_repository
from tests.photo_host import PhotoHost
from tests.pipeline import isolated
from tests.real_kafka import RealKafka

SESSION_S = 6.0
LISTINGS = 200
IN_FLIGHT = 64
_FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


class ScorerProcess(PipelineProcess):
    """A scorer whose clock can jump, and whose log may be on a full disk: readiness is asked over HTTP."""

    def __init__(self, settings: Settings, module: str = "") -> None:
        self.port = free_port()
        super().__init__("worker", settings.model_copy(update={"health_port": self.port}))
        self._module = module
        self._written_log = self.log

    def command(self) -> list[str]:
        command = super().command()
        if self._module:
            command[2] = self._module
        if not _FAKETIME:
            return command
        self.clock.write_text("+0")
        fake = {
            "LD_PRELOAD": str(_FAKETIME[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        return ["env", *(f"{name}={value}" for name, value in fake.items()), *command]

    @property
    def clock(self) -> Path:
        return self.folder / "clock"

    def fill_log_disk(self, full: bool) -> None:
        """Takes effect with the next start."""
        self.log = Path("/dev/full") if full else self._written_log

    def is_ready(self) -> bool:
        return self.health()[0] == 200

    def health(self) -> tuple[int, str]:
        """Return what /livez answers, status (0: nothing) and body."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/livez", timeout=1) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)


class Load(threading.Thread):
    """Publishes events of a pool of listings without end: new versions, old ones late, deletions, bad ones."""

    def __init__(self, settings: Settings, hosts: list[PhotoHost], rate: float, seed: int) -> None:
        super().__init__(daemon=True)
        self._settings = settings
        self._hosts = hosts
        self._rate = rate
        self._random = random.Random(seed)
        self._running = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._ended = False
        self._versions: dict[str, int] = {}
        self._late: set[tuple[str, int]] = set()
        self._prefix = uuid.uuid4().hex[:6]
        self._producer = Producer(
            client_config(settings) | {"log_level": 0, "enable.idempotence": True, "linger.ms": 5}
        )

    def resume(self) -> None:
        self._running.set()

    def pause(self) -> None:
        """Return when everything published is held by the brokers."""
        self._running.clear()
        self._idle.wait(30)
        while self._producer.flush(30):
            pass

    def end(self) -> None:
        self._ended = True
        self._running.set()
        self.join(30)

    def run(self) -> None:
        while True:
            self._running.wait()
            if self._ended:
                return
            self._idle.clear()
            while self._running.is_set() and not self._ended:
                self._publish_one()
                self._producer.poll(0)
                time.sleep(self._random.expovariate(self._rate))
            self._idle.set()

    def _publish_one(self) -> None:
        chance, topic = self._random.random(), self._settings.events_topic
        if chance < 0.02:
            self._producer.produce(topic, key=f"poison-{self._random.random()}", value=b'{"listing_id": "poison"')
            return
        listing = f"{self._prefix}-{self._random.randrange(LISTINGS)}"
        newest = self._versions.get(listing, 0)
        host = self._random.choice(self._hosts)
        if chance < 0.07 and newest and (listing, newest) not in self._late:
            self._late.add((listing, newest))
            event = event_of(listing, [host.good], newest - 1)
        else:
            self._versions[listing] = version = newest + 2
            event = event_of(listing, [host.url("files/missing.jpg") if chance > 0.97 else host.good], version)
            if chance > 0.92 and chance <= 0.97:
                event = event.model_copy(update={"type": ListingEventType.DELETED, "photos": ()})
        self._producer.produce(topic, key=listing, value=event.to_json())


class Cluster:
    """Use as a context manager. `faults` are the things that can happen, by name; each returns when it is over."""

    def __init__(self, brokers: int = 1, delivery: str = "at_least_once", seed: int = 1, rate: float = 30.0) -> None:
        self._brokers = brokers
        self._delivery = delivery
        self._seed = seed
        self._rate = rate
        self._exit = ExitStack()
        self.suspensions = 0
        self.exits: list[str] = []
        """How processes ended by themselves, or were stuck."""
        self.module = ""
        self.scorers: list[ScorerProcess] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._folder = Path(tempfile.mkdtemp(prefix="image-score-faults-"))
            stack.callback(shutil.rmtree, self._folder, True)
            self.kafka = stack.enter_context(RealKafka(self._brokers))
            repository, self._flag = failing_repository(self._folder)
            self.redis, self.triton = EmbeddedRedis(), EmbeddedTriton(repository=repository)
            for server in (self.redis, self.triton):
                stack.callback(server.stop)
                server.start()
            for server in (self.redis, self.triton):
                server.wait_ready()
            self.hosts = [stack.enter_context(PhotoHost(_photo())) for _ in range(2)]
            self.settings = isolated(self._settings(), embedded=False)
            self._stamp_by_broker()
            self.load = Load(self.settings, self.hosts, self._rate, self._seed)
            self.load.start()
            stack.callback(self.load.end)
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (*self.scorers, self.hints):
            process.stop()
        self._exit.close()

    def start(self, module: str = "") -> None:
        """Start two scorers (of another `module` than ours, in tests of the checker) and the hints app."""
        self.module = module
        self.scorers = [ScorerProcess(self.settings, module) for _ in range(2)]
        for process in (*self.scorers, self.hints):
            process.start()
        for process in (*self.scorers, self.hints):
            process.wait_ready()

    @cached_property
    def hints(self) -> PipelineProcess:
        return PipelineProcess("hints", self.settings)

    def revive(self) -> None:
        """Start what has ended, or says that it is stuck, again, as Kubernetes would."""
        for scorer in self.scorers:
            status, facts = scorer.health()
            if status == 503:
                self.exits.append(f"{scorer.name} was stuck: {facts} {_end_of_log(scorer)}")
                scorer.kill()
                scorer.stop(keep_files=True)
                scorer.start()
        for process in (*self.scorers, self.hints, self.triton):
            if process.exit_code is not None:
                self.exits.append(f"{process.name} ended with {process.exit_code}: {_end_of_log(process)}")
                process.stop(keep_files=True)
                process.start()

    # --- faults --------------------------------------------------------------------------------------------

    @cached_property
    def faults(self) -> dict[str, Callable[[random.Random], None]]:
        found = {
            "scorer killed": self._kill_scorer,
            "scorer suspended": self._suspend_scorer,
            "hints app killed": self._kill_hints,
            "Redis restarted": lambda _: self.redis.restart(),
            "Redis killed": self._kill_redis,
            "Redis slow": self._slow_redis,
            "Triton restarted": lambda _: self.triton.restart(),
            "Triton killed": self._kill_triton,
            "Triton returns errors": self._break_triton,
            "broker restarted": self._restart_broker,
            "broker killed": self._kill_broker,
            "rebalance storm": self._storm,
            "photo host hangs": self._hang_host,
            "log disk full": self._fill_disk,
        }
        if _FAKETIME:
            found["clock jumps"] = self._jump_clock
        return found

    def _kill_scorer(self, chance: random.Random) -> None:
        scorer = chance.choice(self.scorers)
        scorer.kill()
        time.sleep(chance.uniform(0, 1))
        scorer.stop()
        scorer.start()
        scorer.wait_ready()

    def _suspend_scorer(self, chance: random.Random) -> None:
        """For less or more than a session, so that it comes back as a member or as a stranger."""
        pid = chance.choice(self.scorers).pid
        self.suspensions += 1
        os.kill(pid, signal.SIGSTOP)
        time.sleep(chance.choice([chance.uniform(0.2, 2), chance.uniform(SESSION_S, 1.5 * SESSION_S)]))
        os.kill(pid, signal.SIGCONT)

    def _kill_hints(self, _: random.Random) -> None:
        self.hints.kill()
        self.hints.stop()
        self.hints.start()
        self.hints.wait_ready()

    def _kill_redis(self, _: random.Random) -> None:
        self.redis.kill()
        self.redis.restart()

    def _slow_redis(self, chance: random.Random) -> None:
        client = redis.Redis.from_url(self.settings.redis)
        for _ in range(3):
            client.client_pause(chance.randrange(200, 1500))
            time.sleep(0.2)

    def _kill_triton(self, _: random.Random) -> None:
        self.triton.kill()
        self.triton.restart()

    def _break_triton(self, chance: random.Random) -> None:
        self._flag.touch()
        time.sleep(chance.uniform(0.2, 3))
        self._flag.unlink()

    def _restart_broker(self, chance: random.Random) -> None:
        chance.choice(self.kafka.nodes).restart()

    def _kill_broker(self, chance: random.Random) -> None:
        node = chance.choice(self.kafka.nodes)
        node.kill()
        node.restart()

    def _storm(self, chance: random.Random) -> None:
        for _ in range(3):
            guest = ScorerProcess(self.settings, self.module)
            guest.start()
            guest.wait_ready()
            time.sleep(chance.uniform(0, 1))
            if chance.random() < 0.5:
                guest.kill()
            guest.stop()

    def _hang_host(self, chance: random.Random) -> None:
        host = chance.choice(self.hosts)
        host.hanging = True
        time.sleep(chance.uniform(0.5, 4))
        host.hanging = False

    def _fill_disk(self, chance: random.Random) -> None:
        """A scorer that cannot write its log goes on."""
        scorer = chance.choice(self.scorers)
        for full in (True, False):
            scorer.stop()
            scorer.fill_log_disk(full)
            scorer.start()
            scorer.wait_ready()
            time.sleep(chance.uniform(0.5, 2))

    def _jump_clock(self, chance: random.Random) -> None:
        clock = chance.choice(self.scorers).clock
        clock.write_text(chance.choice(["+3600", "-3600", "+86400", "-5"]))
        time.sleep(chance.uniform(1, 3))
        clock.write_text("+0")

    # --- set-up --------------------------------------------------------------------------------------------

    def _settings(self) -> Settings:
        return load(
            kafka=self.kafka.address,
            redis=self.redis.url,
            triton=self.triton.address,
            partitions=4,
            replication=self._brokers,
            delivery=self._delivery,
            session_timeout_s=SESSION_S,
            listings_in_flight=IN_FLIGHT,
            commit_interval_s=0.3,
            fetch_allow=tuple(host.address for host in self.hosts),
            fetch_timeout_s=1.0,
            fetch_attempts=2,
            retry_delays_s=(0.5, 2.0, 5.0, 10.0),
            infer_timeout_s=5.0,
            drain_timeout_s=10.0,
        )

    def _stamp_by_broker(self) -> None:
        """The scores get the broker's time, whatever a scorer's clock says."""
        entry = ConfigEntry("message.timestamp.type", "LogAppendTime", incremental_operation=AlterConfigOpType.SET)
        topic = ConfigResource(ConfigResource.Type.TOPIC, self.settings.scores_topic, incremental_configs=[entry])
        admin = AdminClient(client_config(self.settings))
        for future in admin.incremental_alter_configs([topic]).values():
            try:
                future.result()
            except KafkaException as error:
                raise RuntimeError(f"the topic's time stamps cannot be set: {error}") from None


def _end_of_log(process: Server) -> str:
    lines = process.log.read_text(errors="replace").splitlines() if process.log.is_file() else []
    return "\n  ".join(lines[-20:])


def _photo() -> bytes:
    from stream.demo.samples import draw_samples

    with tempfile.TemporaryDirectory() as folder:
        return next(path for path in draw_samples(Path(folder)) if path.stem == "t-shirt-good").read_bytes()
