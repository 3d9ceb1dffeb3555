"""The hints app: reads `image.scores`, tells each seller how to take a better photo on `seller.hints`.

A Faust app. A score that is delivered again makes the same hint again, with the same `hint_id`. It never declares
topics: `image-score topics create` does.
"""

from __future__ import annotations

import ssl
import tempfile
import uuid
from datetime import UTC, datetime
from typing import Any

import faust
import mode.loop
from faust.auth import SASLCredentials, SSLCredentials
from faust.types.auth import CredentialsT

from schemas import ImageScore, MessageError, SellerHint
from stream.log import log
from stream.settings import Settings
from stream.tips import Policy, load_policy, tips_of

_COMMIT_S = 0.25
_LINGER_S = 0.05
_NAMESPACE = uuid.UUID("0b9d1b0e-7f39-5c0f-9d0c-5a3c1ab05c1e")


def hint_of(score: ImageScore, settings: Settings, policy: Policy) -> SellerHint:
    """Return the hint that answers a score; the same event always gives the same `hint_id`."""
    return SellerHint(
        hint_id=uuid.uuid5(_NAMESPACE, str(score.event.event_id)),
        seller_id=score.event.seller_id,
        listing_id=score.listing_id,
        listing_version=score.event.version,
        locale=score.event.locale,
        score=score.score,
        tips=tips_of(score, policy, settings.tip_threshold, settings.cover_margin),
        created_at=datetime.now(UTC),
    )


def make_app(settings: Settings, folder: str) -> faust.App:
    """Return the Faust app for these settings; Faust insists on a `folder` for its data, though it has none."""
    policy = load_policy(settings.model_metrics)
    app = faust.App(
        settings.hints_group,
        broker=";".join(f"kafka://{server.strip()}" for server in settings.kafka.split(",")),
        broker_credentials=_credentials(settings),
        key_serializer="raw",
        value_serializer="raw",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        datadir=folder,
        broker_commit_interval=_COMMIT_S,
        broker_session_timeout=10.0,  # as the scorer: an app that is silent for this long is gone
        broker_heartbeat_interval=3.0,
        producer_linger=_LINGER_S,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
        processing_guarantee=settings.delivery,
    )
    scores = app.topic(settings.scores_topic, key_type=bytes, value_type=bytes)
    hints = app.topic(settings.hints_topic, key_type=bytes, value_type=bytes)

    @app.task  # type: ignore[untyped-decorator]
    async def ready() -> None:
        log.info("ready: answering scores of %s as group %s", settings.scores_topic, settings.hints_group)

    @app.agent(scores)
    async def answer(stream: Any) -> None:
        async for key, value in stream.items():
            if value is None:
                continue  # a tombstone: the listing is gone, and its hints with it
            try:
                score = ImageScore.from_json(value)
            except MessageError as error:
                log.warning("score of listing %r skipped: %s", key, error)
                continue
            hint = hint_of(score, settings, policy)
            # Faust keeps what is sent while a score is handled, produces it in one go when it is about to
            # commit that score's offset, and commits only after the brokers hold it.
            await hints.send(key=hint.seller_id.encode(), value=hint.to_json())

    return app


def _credentials(settings: Settings) -> CredentialsT | None:
    protocol = settings.kafka_security_protocol
    context = None
    if protocol.endswith("ssl"):
        context = ssl.create_default_context(cafile=settings.kafka_ssl_ca or None)
        if settings.kafka_ssl_cert:
            context.load_cert_chain(settings.kafka_ssl_cert, settings.kafka_ssl_key or None)
    if protocol.startswith("sasl"):
        return SASLCredentials(
            mechanism=settings.kafka_sasl_mechanism,
            username=settings.kafka_sasl_username,
            password=settings.kafka_sasl_password.get_secret_value(),
            ssl_context=context,
        )
    return SSLCredentials(context=context) if context else None


def run(settings: Settings) -> None:
    """Run the app until SIGTERM or SIGINT."""
    mode.loop.use("uvloop")
    with tempfile.TemporaryDirectory(prefix="image-score-hints-") as folder:
        worker = faust.Worker(make_app(settings, folder), quiet=True, override_logging=False)
        worker.execute_from_commandline()
