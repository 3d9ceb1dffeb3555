"""Scores photos at Triton over gRPC; photos of many listings are in flight at once, so that its batches fill."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from tenacity import before_sleep_log, retry, retry_if_exception_type, wait_random_exponential
from tritonclient.grpc import service_pb2, service_pb2_grpc

from schemas import ASPECTS, ISSUES, Aspect, Issue, PhotoErrorType
from stream.errors import DependencyError, PhotoRejected, ServiceUnavailable, SettingsError
from stream.log import log
from stream.settings import Settings

_FLOATS = {"SCORE": 1, "CLASS_PROBS": 5, "ASPECTS": len(ASPECTS), "ISSUES": len(ISSUES)}
_DOES_NOT_DECODE = "photo does not decode"


@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's answer for one photo; every number is in 0..1."""

    score: float
    class_probs: tuple[float, ...]
    aspects: dict[Aspect, float]
    issues: dict[Issue, float]
    model_version: int


class TritonModel:
    """One model at one Triton server; use as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inferences = asyncio.Semaphore(settings.inferences)
        self._outputs = [service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in _FLOATS]
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
        """Return when the model is ready.

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
        if not answer.ready:
            name = self._settings.model
            raise DependencyError(f"{where} has no model {name!r}: load it, or set IMAGE_SCORE_MODEL")

    async def predict(self, photo: bytes) -> Prediction:
        """Score one encoded photo; waits through an outage of Triton.

        Raises:
            PhotoRejected: the photo does not decode.
        """
        async with self._inferences:
            try:
                return await self._infer(photo)
            except ServiceUnavailable:
                return await self._infer_until_back(photo)

    async def _infer(self, photo: bytes) -> Prediction:
        request = service_pb2.ModelInferRequest(
            model_name=self._settings.model,
            inputs=[service_pb2.ModelInferRequest.InferInputTensor(name="IMAGE", datatype="BYTES", shape=[1, 1])],
            outputs=self._outputs,
            raw_input_contents=[struct.pack("<I", len(photo)) + photo],
        )
        try:
            answer = await self._stub.ModelInfer(request, timeout=self._settings.infer_timeout_s)
        except grpc.aio.AioRpcError as error:
            details = error.details() or ""
            if _DOES_NOT_DECODE in details:
                message = f"{details}: upload the photo again"
                raise PhotoRejected(PhotoErrorType.UNREADABLE, message) from None
            raise ServiceUnavailable(f"Triton at {self._settings.triton}: {error.code().name} {details}") from None
        return _parse(answer)

    @retry(
        retry=retry_if_exception_type(ServiceUnavailable),
        wait=wait_random_exponential(multiplier=0.1, max=2),
        before_sleep=before_sleep_log(log, 30),
    )
    async def _infer_until_back(self, photo: bytes) -> Prediction:
        return await self._infer(photo)


def _pem(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read PEM file {path!r}: {error.strerror}") from None


def _parse(answer: service_pb2.ModelInferResponse) -> Prediction:
    raw = {o.name: data for o, data in zip(answer.outputs, answer.raw_output_contents, strict=True)}
    values = {name: struct.unpack(f"<{count}f", raw[name]) for name, count in _FLOATS.items()}
    return Prediction(
        score=_unit(values["SCORE"][0]),
        class_probs=tuple(map(_unit, values["CLASS_PROBS"])),
        aspects=dict(zip(ASPECTS, map(_unit, values["ASPECTS"]), strict=True)),
        issues=dict(zip(ISSUES, map(_unit, values["ISSUES"]), strict=True)),
        model_version=int(answer.model_version),
    )


def _unit(value: float) -> float:
    """Four decimals say all that a score can say; float rounding must not leave 0..1."""
    return round(min(max(value, 0.0), 1.0), 4)
