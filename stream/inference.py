"""Scores photos at Triton over gRPC; photos of many listings are in flight at once, so that its batches fill."""

from __future__ import annotations

import asyncio
import io
import struct
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import numpy as np
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc

from schemas import ASPECTS, ISSUES, Aspect, Issue, PhotoErrorType
from stream.consumer import CircuitBreaker, waiting
from stream.errors import DependencyError, PhotoRejected, ServiceUnavailable, SettingsError
from stream.settings import Settings

_OUTPUTS = ("SCORE", "CLASS_PROBS", "ASPECTS", "ISSUES")  # 1, 5, 6 and 20 floats
_LENGTH = struct.Struct("<I")
_REQUEST_BYTES = 4 * 2**20
"""No photo is added to a request that has this many bytes."""
_DOES_NOT_DECODE = "photo does not decode"
_OUTAGES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's answer for one photo; every number is in 0..1."""

    score: float
    class_probs: tuple[float, ...]
    aspects: dict[Aspect, float]
    issues: dict[Issue, float]
    model_version: int


_Waiting = tuple[bytes, "asyncio.Future[Prediction]"]


class TritonModel:
    """One model at one Triton server; use as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.breaker = CircuitBreaker(f"Triton at {settings.triton}", (ServiceUnavailable,))
        self._waiting: deque[_Waiting] = deque()
        self._lanes: set[asyncio.Task[None]] = set()
        self._max_batch = self._max_lanes = 1
        self._outputs = [service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in _OUTPUTS]
        self._channel: grpc.aio.Channel
        self._stub: service_pb2_grpc.GRPCInferenceServiceStub

    async def __aenter__(self) -> Self:
        options = [
            ("grpc.max_send_message_length", -1),
            # The default waits up to two minutes before it tries a restarted server again.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        settings = self._settings
        if settings.triton_tls:
            credentials = grpc.ssl_channel_credentials(
                _pem(settings.triton_ssl_ca), _pem(settings.triton_ssl_key), _pem(settings.triton_ssl_cert)
            )
            self._channel = grpc.aio.secure_channel(settings.triton, credentials, options)
        else:
            self._channel = grpc.aio.insecure_channel(settings.triton, options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def check(self, timeout_s: float = 10.0) -> None:
        """Return when the model is ready; learns how many photos a request may hold. Call it before `predict`.

        Raises:
            DependencyError: no answer within `timeout_s`, or the model is not there; names address and remedy.
        """
        request = service_pb2.ModelReadyRequest(name=self._settings.model)
        where = f"Triton at {self._settings.triton}"
        try:
            answer = await self._stub.ModelReady(request, timeout=timeout_s, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            message = f"{where} does not answer ({error.code().name}): start it, or set IMAGE_SCORE_TRITON"
            raise DependencyError(message) from None
        name = self._settings.model
        if not answer.ready:
            raise DependencyError(f"{where} has no model {name!r}: load it, or set IMAGE_SCORE_MODEL")
        config = await self._stub.ModelConfig(service_pb2.ModelConfigRequest(name=name), timeout=timeout_s)
        self._max_batch = max(1, config.config.max_batch_size)
        self._max_lanes = max(1, self._settings.inferences // self._max_batch)

    async def predict(self, photo: bytes) -> Prediction:
        """Score one encoded photo; waits through an outage of Triton.

        Photos that wait at the same time share a request, which costs both sides less than one each.

        Raises:
            PhotoRejected: the photo does not decode.
        """
        done: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        self._waiting.append((photo, done))
        if len(self._lanes) < self._max_lanes:
            lane = asyncio.create_task(self._drain())
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)
        with waiting("Triton"):
            return await done

    async def _drain(self) -> None:
        """One of the lanes to Triton: sends what waits, as much as fits in a request, until nothing does."""
        while self._waiting:
            batch = [self._waiting.popleft()]
            size = len(batch[0][0])
            while self._waiting and len(batch) < self._max_batch and size < _REQUEST_BYTES:
                batch.append(self._waiting.popleft())
                size += len(batch[-1][0])
            await self._answer([item for item in batch if not item[1].done()])

    async def _answer(self, batch: list[_Waiting]) -> None:
        """Give each photo of the batch its prediction; if one of several does not decode, ask for each alone."""
        if not batch:
            return
        try:
            predictions = await self.breaker.call(partial(self._infer, [photo for photo, _ in batch]))
        except Exception as error:
            if isinstance(error, PhotoRejected) and len(batch) > 1:
                await asyncio.gather(*(self._answer([item]) for item in batch))
                return
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
            return
        for (_, done), prediction in zip(batch, predictions, strict=True):
            if not done.done():
                done.set_result(prediction)

    async def _infer(self, photos: list[bytes]) -> list[Prediction]:
        try:
            return await self._ask(photos)
        except grpc.aio.AioRpcError as error:
            details = error.details() or ""
            if _DOES_NOT_DECODE in details:
                raise PhotoRejected(PhotoErrorType.UNREADABLE, f"{details}: upload the photo again") from None
            if error.code() not in _OUTAGES and await self._answers():
                # One photo that the model always fails on must not look like an outage to all the others.
                message = f"the model fails on this photo ({error.code().name} {details}): upload another one"
                raise PhotoRejected(PhotoErrorType.UNREADABLE, message) from None
            raise ServiceUnavailable(f"{error.code().name} {details}") from None

    async def _answers(self) -> bool:
        """Whether the model scores a photo that is known to be good."""
        try:
            await self._ask([_KNOWN_GOOD])
        except grpc.aio.AioRpcError:
            return False
        return True

    async def _ask(self, photos: list[bytes]) -> list[Prediction]:
        shape = [len(photos), 1]
        request = service_pb2.ModelInferRequest(
            model_name=self._settings.model,
            inputs=[service_pb2.ModelInferRequest.InferInputTensor(name="IMAGE", datatype="BYTES", shape=shape)],
            outputs=self._outputs,
            raw_input_contents=[b"".join(part for photo in photos for part in (_LENGTH.pack(len(photo)), photo))],
        )
        if self._settings.infer_priority:
            request.parameters["priority"].uint64_param = self._settings.infer_priority
        answer = await self._stub.ModelInfer(request, timeout=self._settings.infer_timeout_s)
        return _parse(answer, len(photos))


def _small_photo() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), (120, 140, 160)).save(data, "JPEG")
    return data.getvalue()


_KNOWN_GOOD = _small_photo()


def _pem(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read PEM file {path!r}: {error.strerror}") from None


def _parse(answer: service_pb2.ModelInferResponse, count: int) -> list[Prediction]:
    """Four decimals say all that a score can say; float rounding must not leave 0..1."""
    raw = {o.name: data for o, data in zip(answer.outputs, answer.raw_output_contents, strict=True)}
    parts = [np.frombuffer(raw[name], np.float32).reshape(count, -1) for name in _OUTPUTS]
    rows = np.concatenate(parts, 1).astype(np.float64).clip(0, 1).round(4).tolist()
    version = int(answer.model_version)
    return [
        Prediction(
            score=row[0],
            class_probs=tuple(row[1:6]),
            aspects=dict(zip(ASPECTS, row[6:12], strict=True)),
            issues=dict(zip(ISSUES, row[12:], strict=True)),
            model_version=version,
        )
        for row in rows
    ]
