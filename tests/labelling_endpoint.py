"""A real HTTP server that speaks the OpenAI protocol (chat completions, files, batches), and misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from schemas import ASPECTS

Reply = Callable[[dict[str, Any], int], web.Response | str | dict[str, Any]]
"""(request body, its number from 0) -> a response, the text of an answer, or parts of a choice."""


def answer(score: int = 3, **changes: Any) -> str:
    """Return a good answer's text."""
    return json.dumps(
        {"observations": "A shirt on a bed.", "aspects": dict.fromkeys(ASPECTS, score), "issues": [], "score": score}
        | changes
    )


class LabellingEndpoint:
    """Use as a context manager; `reply` says what each chat completion gets."""

    def __init__(self, reply: Reply = lambda body, number: answer()) -> None:
        self.reply = reply
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.at_once = self.most_at_once = 0
        self.delay_s = 0.0
        self.first_delay_s = 0.0
        """Of the first request alone."""
        self.polls_until_done = 1
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files/{id}/content", self._download)
        app.router.add_post("/v1/batches", self._create)
        app.router.add_get("/v1/batches/{id}", self._retrieve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    def _completion(self, body: dict[str, Any]) -> web.Response | dict[str, Any]:
        self.bodies.append(body)
        found = self.reply(body, len(self.bodies) - 1)
        if isinstance(found, web.Response):
            return found
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": found}}
        if isinstance(found, dict):
            choice = {"index": 0, **found}
        usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
        return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}

    async def _chat(self, request: web.Request) -> web.Response:
        self.keys.add(request.headers.get("Authorization", ""))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        delay, self.first_delay_s = self.first_delay_s or self.delay_s, 0.0
        await asyncio.sleep(delay)
        self.at_once -= 1
        found = self._completion(await request.json())
        return found if isinstance(found, web.Response) else web.json_response(found)

    def _file(self, data: bytes) -> str:
        name = f"file-{uuid.uuid4().hex}"
        self._files[name] = data
        return name

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        part = form["file"]
        assert isinstance(part, web.FileField)
        name = self._file(part.file.read())
        body = {"id": name, "object": "file", "bytes": 1, "created_at": 0, "filename": "f", "purpose": "batch"}
        return web.json_response(body | {"status": "processed"})

    async def _download(self, request: web.Request) -> web.Response:
        return web.Response(body=self._files[request.match_info["id"]])

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        lines = []
        for line in self._files[asked["input_file_id"]].splitlines():
            row = json.loads(line)
            found = self._completion(row["body"])
            ok = not isinstance(found, web.Response)
            response = {"status_code": 200 if ok else found.status, "body": found if ok else {}}  # type: ignore[union-attr]
            lines.append(json.dumps({"id": "r", "custom_id": row["custom_id"], "response": response}))
        name = f"batch-{uuid.uuid4().hex}"
        self._batches[name] = {
            "id": name,
            "object": "batch",
            "endpoint": asked["endpoint"],
            "input_file_id": asked["input_file_id"],
            "completion_window": "24h",
            "created_at": 0,
            "status": "in_progress",
            "polls": 0,
            "output": self._file("\n".join(lines).encode()),
        }
        return web.json_response(self._shown(name))

    async def _retrieve(self, request: web.Request) -> web.Response:
        batch = self._batches[request.match_info["id"]]
        batch["polls"] += 1
        if batch["polls"] > self.polls_until_done:
            batch |= {"status": "completed", "output_file_id": batch["output"]}
        return web.json_response(self._shown(request.match_info["id"]))

    def _shown(self, name: str) -> dict[str, Any]:
        return {key: value for key, value in self._batches[name].items() if key not in ("polls", "output")}
