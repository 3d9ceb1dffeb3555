"""Asks the labeller about photos, many at once; checks each answer, asks again, and sets aside what stays wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
from openai import AsyncOpenAI

from triton_models.errors import EndpointError
from triton_models.labelling.answers import Answers, Key, photo_hash
from triton_models.labelling.limits import Budget, RateLimit
from triton_models.labelling.prompt import Answer, MalformedAnswer, MalformedPhoto, Rubric, encode_photo, parse, request

_FATAL = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)
_PASSING = (openai.RateLimitError, openai.InternalServerError, openai.APIConnectionError)  # a time-out is one of these
_REJECTED_IN_A_ROW = 10
"""So many requests refused as invalid, and none answered: it is our request, not the photos."""


@dataclass(frozen=True)
class Options:
    """How to ask: `tries` of a request that fails, `corrections` of an answer that is malformed."""

    model: str
    samples: int = 1
    concurrency: int = 8
    tries: int = 5
    corrections: int = 2
    timeout_s: float = 120.0
    max_tokens: int = 1000
    first_wait_s: float = 1.0

    @property
    def request(self) -> dict[str, Any]:
        # One answer is the likeliest one; several are drawn, or they would all be the same.
        return {"max_tokens": self.max_tokens, "temperature": 0.7 if self.samples > 1 else 0.0}


@dataclass(frozen=True)
class Job:
    path: Path
    key: Key


@dataclass
class Outcome:
    """What came of a run: counts, and each photo that was set aside with its reason."""

    asked: int = 0
    cached: int = 0
    retries: int = 0
    corrections: int = 0
    set_aside: dict[Path, str] = field(default_factory=dict)
    stopped_by_budget: bool = False


class SetAside(Exception):
    """A photo that gets no label; its text says why."""


class _OverBudget(Exception):
    pass


def jobs_of(photos: Sequence[Path], rubric: Rubric, options: Options) -> list[Job]:
    return [
        Job(path, Key(digest, rubric.key, options.model, sample))
        for path in photos
        for digest in [photo_hash(path)]
        for sample in range(options.samples)
    ]


class Labeller:
    """Asks one model at an OpenAI-compatible endpoint; `client` must not retry by itself (max_retries=0)."""

    def __init__(self, client: AsyncOpenAI, rubric: Rubric, options: Options, answers: Answers, budget: Budget) -> None:
        self._client, self._rubric, self._options = client, rubric, options
        self._answers, self._budget = answers, budget
        self._limit = RateLimit()
        self._rejected = 0
        self.outcome = Outcome()

    async def run(self, jobs: Sequence[Job], on_done: Callable[[], None] = lambda: None) -> Outcome:
        """Answer every job that the cache has not; returns early when the budget is used up.

        Raises:
            EndpointError: the endpoint refuses what no retry would change.
        """
        waiting = iter(jobs)

        async def work() -> None:
            for job in waiting:
                if self.outcome.stopped_by_budget:
                    return
                await self._do(job)
                on_done()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._options.concurrency):
                    group.create_task(work())
        except* EndpointError as errors:
            raise errors.exceptions[0] from None
        return self.outcome

    async def _do(self, job: Job) -> None:
        if job.path in self.outcome.set_aside:
            return
        if self._answers.get(job.key):
            self.outcome.cached += 1
            return
        try:
            answer, cost = await self._answer(job.path)
        except SetAside as reason:
            self.outcome.set_aside[job.path] = str(reason)
        except _OverBudget:
            self.outcome.stopped_by_budget = True
        else:
            self._answers.put(job.key, answer, cost)

    async def _answer(self, path: Path) -> tuple[Answer, float]:
        try:
            photo = await asyncio.to_thread(encode_photo, path)
        except MalformedPhoto as error:
            raise SetAside(f"photo {error}") from None
        wrong: list[tuple[str, str]] = []
        total = 0.0
        while True:
            body = request(self._rubric, self._options.model, photo, wrong, **self._options.request)
            completion = await self._complete(body)
            total += pay(self._budget, completion)
            try:
                return read(completion), total
            except MalformedAnswer as error:
                if len(wrong) == self._options.corrections:
                    raise SetAside(f"malformed: {error}") from None
                self.outcome.corrections += 1
                wrong.append((text_of(completion), str(error)))

    async def _complete(self, body: dict[str, Any]) -> Any:
        """Ask once, and again through what passes soon; waits as long as the server's headers ask."""
        for attempt in range(self._options.tries):
            await self._limit.wait()
            reserved = self._budget.reserve()
            if reserved is None:
                raise _OverBudget
            try:
                self.outcome.asked += 1
                raw = await self._client.chat.completions.with_raw_response.create(
                    **body, timeout=self._options.timeout_s
                )
                self._limit.learn(raw.headers)
                self._rejected = 0
                return raw.parse()
            except _PASSING as error:
                last = error
                self._learn_from(error)
            except _FATAL as error:
                raise EndpointError(
                    f"{self._client.base_url}: {error}: check --endpoint, --model and the key"
                ) from None
            except openai.APIStatusError as error:
                self._rejected += 1
                if self._rejected >= _REJECTED_IN_A_ROW:
                    raise EndpointError(f"{self._client.base_url} refuses every request: {error}") from None
                raise SetAside(f"refused by the endpoint: {error}") from None
            finally:
                self._budget.release(reserved or 0.0)
            self.outcome.retries += 1
            wait = self._options.first_wait_s * 2**attempt
            await asyncio.sleep(random.uniform(wait / 2, wait))
        raise SetAside(f"unavailable after {self._options.tries} tries: {last}; the next run asks again")

    def _learn_from(self, error: openai.APIError) -> None:
        if isinstance(error, openai.APIStatusError):
            if error.code == "insufficient_quota":
                raise EndpointError(f"{self._client.base_url}: {error}: add credit, then run the same command again")
            self._limit.learn(error.response.headers)


def pay(budget: Budget, completion: Any) -> float:
    usage = completion.usage
    return budget.pay(usage.prompt_tokens, usage.completion_tokens) if usage else 0.0


def text_of(completion: Any) -> str:
    return (completion.choices[0].message.content or "") if completion.choices else ""


def read(completion: Any) -> Answer:
    """Return a completion's answer.

    Raises:
        SetAside: the model refused.
        MalformedAnswer: the answer is cut off, or is not as asked.
    """
    if not completion.choices:
        raise MalformedAnswer("it was empty")
    choice = completion.choices[0]
    refusal = getattr(choice.message, "refusal", None)
    if refusal or choice.finish_reason == "content_filter":
        raise SetAside(f"refused by the model: {refusal or 'content filter'}")
    if choice.finish_reason == "length":
        raise MalformedAnswer("it was cut off; use fewer words")
    return parse(text_of(completion))
