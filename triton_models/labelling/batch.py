"""Labels through the endpoint's batch API: a file of requests goes up, a file of answers comes down hours later.

A batch that was sent is remembered beside the cache, so that a run can be stopped while it waits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion

from triton_models.errors import EndpointError
from triton_models.labelling.answers import Answers
from triton_models.labelling.labeller import Job, Options, Outcome, SetAside, pay, read, text_of
from triton_models.labelling.limits import Budget
from triton_models.labelling.prompt import MalformedAnswer, MalformedPhoto, Rubric, encode_photo, request

MAX_REQUESTS = 500
"""Requests of one file: at about 200 KB a photo, under the 200 MB that endpoints take."""
_ENDED = ("completed", "failed", "expired", "cancelled")


class BatchLabeller:
    """As Labeller, by batches. A malformed answer is asked again, with the error, in the next batch."""

    def __init__(
        self,
        client: AsyncOpenAI,
        rubric: Rubric,
        options: Options,
        answers: Answers,
        budget: Budget,
        poll_s: float = 30.0,
    ) -> None:
        self._client, self._rubric, self._options = client, rubric, options
        self._answers, self._budget, self._poll_s = answers, budget, poll_s
        self._wrong: dict[str, list[tuple[str, str]]] = {}
        self.outcome = Outcome()

    async def run(self, jobs: Sequence[Job], on_done: Callable[[], None] = lambda: None) -> Outcome:
        """Answer every job that the cache has not.

        Raises:
            EndpointError: the endpoint refuses a batch.
        """
        ids = {f"{job.key.photo}-{job.key.sample}": job for job in jobs}
        try:
            for batch, names in self._answers.open_batches(self._rubric.key, self._options.model).items():
                await self._finish(batch, {name: ids[name] for name in json.loads(names) if name in ids})
            self.outcome.cached = sum(self._answers.get(job.key) is not None for job in ids.values())
            for _ in range(self._options.corrections + 1):
                left = {name: job for name, job in ids.items() if self._is_open(job)}
                await self._ask(left)
                if self.outcome.stopped_by_budget:
                    break
        except openai.APIError as error:
            raise EndpointError(f"{self._client.base_url}: {error}: check the endpoint's batch API") from None
        for name, job in ids.items():
            if self._is_open(job) and not self.outcome.stopped_by_budget:
                said = self._wrong.get(name)
                self.outcome.set_aside[job.path] = f"malformed: {said[-1][1]}" if said else "the batch has no answer"
            on_done()
        return self.outcome

    def _is_open(self, job: Job) -> bool:
        return job.path not in self.outcome.set_aside and self._answers.get(job.key) is None

    async def _ask(self, jobs: dict[str, Job]) -> None:
        names = list(jobs)
        for start in range(0, len(names), MAX_REQUESTS):
            lines, asked, reserved = [], {}, 0.0
            for name in names[start : start + MAX_REQUESTS]:
                try:
                    photo = await asyncio.to_thread(encode_photo, jobs[name].path)
                except MalformedPhoto as error:
                    self.outcome.set_aside[jobs[name].path] = f"photo {error}"
                    continue
                amount = self._budget.reserve()
                if amount is None:
                    self.outcome.stopped_by_budget = True
                    break
                reserved += amount
                body = request(
                    self._rubric, self._options.model, photo, self._wrong.get(name, []), **self._options.request
                )
                lines.append({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body})
                asked[name] = jobs[name]
            if lines:
                await self._finish(await self._send(lines), asked)
            self._budget.release(reserved)

    async def _send(self, lines: list[dict[str, Any]]) -> str:
        self.outcome.asked += len(lines)
        data = "\n".join(json.dumps(line) for line in lines).encode()
        file = await self._client.files.create(file=("requests.jsonl", data), purpose="batch")
        batch = await self._client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        names = json.dumps([line["custom_id"] for line in lines])
        self._answers.sent(batch.id, self._rubric.key, self._options.model, names)
        return batch.id

    async def _finish(self, batch_id: str, jobs: dict[str, Job]) -> None:
        """Wait for a batch, and keep its good answers."""
        while (batch := await self._client.batches.retrieve(batch_id)).status not in _ENDED:  # noqa: ASYNC110 - it cannot tell us
            await asyncio.sleep(self._poll_s)
        if batch.status == "failed":
            self._answers.read(batch_id)
            faults = "; ".join(fault.message or "" for fault in (batch.errors.data or [])) if batch.errors else ""
            raise EndpointError(f"{self._client.base_url}: batch {batch_id} failed: {faults or 'no reason given'}")
        for file in filter(None, (batch.output_file_id, batch.error_file_id)):
            for line in (await self._client.files.content(file)).text.splitlines():
                self._read(json.loads(line), jobs)
        self._answers.read(batch_id)

    def _read(self, line: dict[str, Any], jobs: dict[str, Job]) -> None:
        name, response = line["custom_id"], line.get("response") or {}
        if name not in jobs or response.get("status_code") != 200:
            return
        completion = ChatCompletion.model_validate(response["body"])
        cost = pay(self._budget, completion)
        try:
            self._answers.put(jobs[name].key, read(completion), cost)
        except SetAside as reason:
            self.outcome.set_aside[jobs[name].path] = str(reason)
        except MalformedAnswer as error:
            self.outcome.corrections += 1
            self._wrong.setdefault(name, []).append((text_of(completion), str(error)))
