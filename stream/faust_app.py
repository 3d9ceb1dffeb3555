"""What the Faust apps share: connection, commits, credentials, and how they run."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable
from typing import Any

import faust
import mode.loop
from faust.auth import SASLCredentials, SSLCredentials
from faust.types.auth import CredentialsT

from stream.settings import Settings

_COMMIT_S = 0.25
_LINGER_S = 0.05


def faust_app(settings: Settings, group: str, folder: str, **options: Any) -> faust.App:
    """Return an app that never declares topics: `image-score topics create` does."""
    return faust.App(
        group,
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
        **({"processing_guarantee": settings.delivery} | options),
    )


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


def run_app(make: Callable[[str], faust.App]) -> None:
    """Run an app until SIGTERM or SIGINT; it gets a folder of its own, which goes with it."""
    mode.loop.use("uvloop")
    with tempfile.TemporaryDirectory(prefix="image-score-faust-") as folder:
        worker = faust.Worker(make(folder), quiet=True, override_logging=False)
        worker.execute_from_commandline()
