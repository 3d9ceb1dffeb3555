"""The circuit breaker: an outage is waited out, by one asking and all others waiting."""

from __future__ import annotations

import asyncio

import pytest

from stream.consumer import CircuitBreaker


class Away(Exception):
    pass


class Service:
    def __init__(self) -> None:
        self.away = False
        self.asked = 0
        self.at_once = self.most = 0

    async def ask(self) -> str:
        self.asked += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(0.005)
            if self.away:
                raise Away
            return "answer"
        finally:
            self.at_once -= 1


def test_calls_wait_through_an_outage_and_one_at_a_time_asks() -> None:
    async def run() -> None:
        service, breaker = Service(), CircuitBreaker("service", (Away,))
        service.away = True
        calls = [asyncio.create_task(breaker.call(service.ask)) for _ in range(50)]
        await asyncio.sleep(0.05)
        assert breaker.is_open
        asked, service.most = service.asked, 0
        await asyncio.sleep(0.3)
        assert service.most == 1
        assert 1 <= service.asked - asked <= 10
        service.away = False
        assert await asyncio.gather(*calls) == ["answer"] * 50
        assert not breaker.is_open
        assert breaker.opened == 1

    asyncio.run(run())


def test_probe_that_is_cancelled_leaves_it_to_another() -> None:
    async def run() -> None:
        service, breaker = Service(), CircuitBreaker("service", (Away,))
        service.away = True
        calls = [asyncio.create_task(breaker.call(service.ask)) for _ in range(5)]
        await asyncio.sleep(0.05)
        calls[0].cancel()
        service.away = False
        assert await asyncio.gather(*calls[1:]) == ["answer"] * 4

    asyncio.run(run())


def test_other_errors_are_the_callers() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def run() -> None:
        breaker = CircuitBreaker("service", (Away,))
        with pytest.raises(ZeroDivisionError):
            await breaker.call(fail)
        assert not breaker.is_open

    asyncio.run(run())
