"""Every setting, its default and its `IMAGE_SCORE_*` environment variable, in one place."""

from __future__ import annotations

import os
from datetime import time
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from schemas import dead_letter, hint_feedback, image_score, listing_event, seller_hint, seller_notice
from schemas.base import describe
from schemas.listing_event import BACKFILL_TOPIC, RETRY_TOPIC
from stream.errors import SettingsError

ENV_PREFIX = "IMAGE_SCORE_"


class Settings(BaseSettings):
    """The effective settings: command line over environment over defaults. An empty address means embedded."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True, env_ignore_empty=True)

    kafka: str = Field("", description="Kafka bootstrap servers, host:port[,host:port]; empty: embedded")
    kafka_security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    kafka_sasl_username: str = ""
    kafka_sasl_password: SecretStr = SecretStr("")
    kafka_ssl_ca: str = Field("", description="PEM file of the authority that signed the brokers; empty: the system's")
    kafka_ssl_cert: str = Field("", description="PEM file of the client certificate, for mutual TLS")
    kafka_ssl_key: str = Field("", description="PEM file of the client key, for mutual TLS")
    redis: str = Field(
        "",
        description="redis://, redis+sentinel:// or redis+cluster:// URL, with user and password; empty: embedded",
    )
    redis_ssl_ca: str = Field("", description="PEM file of the authority that signed Redis; empty: the system's")
    triton: str = Field("", description="Triton gRPC address, host:port; empty: embedded")
    triton_tls: bool = Field(False, description="speak TLS to Triton")
    triton_ssl_ca: str = Field("", description="PEM file of the authority that signed Triton; empty: the system's")
    triton_ssl_cert: str = Field("", description="PEM file of the client certificate, for mutual TLS")
    triton_ssl_key: str = Field("", description="PEM file of the client key, for mutual TLS")

    events_topic: str = listing_event.TOPIC
    scores_topic: str = image_score.TOPIC
    shadow_topic: str = image_score.SHADOW_TOPIC
    advised_topic: str = image_score.ADVISED_TOPIC
    hints_topic: str = seller_hint.TOPIC
    dlq_topic: str = dead_letter.TOPIC
    retry_topic: str = RETRY_TOPIC
    backfill_topic: str = BACKFILL_TOPIC
    feedback_topic: str = hint_feedback.TOPIC
    notices_topic: str = seller_notice.TOPIC
    notice_ticks_topic: str = seller_notice.TICKS_TOPIC
    partitions: int = Field(12, ge=1, le=1000, description="partitions of the topics that `topics create` makes")
    replication: int = Field(1, ge=1, le=10, description="replication factor of those topics")
    scorer_group: str = Field("image-score-scorer", description="consumer group of the scorer")
    notices_group: str = Field("image-score-notices", description="consumer group of the notices app, its Faust id")
    index_group: str = Field("image-score-index", description="consumer group of the search index's sink")
    advise_group: str = Field("image-score-advise", description="consumer group of `advise`")
    advise_below: float = Field(0.6, ge=0, le=1, description="photos that score less get fixes tried on them")
    advise_photos: int = Field(4, ge=1, le=64, description="photos that fixes are tried on at once")
    hints_from: Literal["scores", "advised"] = Field(
        "scores", description="advised: the hints app reads what `advise` writes, and tells of fixes, too"
    )
    hints_group: str = Field("image-score-hints", description="consumer group of the hints app, its Faust id")

    delivery: Literal["at_least_once", "exactly_once"] = Field(
        "at_least_once", description="exactly_once: scores, hints and offsets in Kafka transactions"
    )
    group_protocol: Literal["classic", "consumer"] = Field(
        "classic", description="consumer: KIP-848, for brokers from 4.0 on"
    )
    instance: str = Field("", description="a scorer's own name that stays over restarts: static membership")
    session_timeout_s: float = Field(10.0, ge=6, le=300, description="a scorer that is silent for this long is gone")
    revoke_timeout_s: float = Field(5.0, gt=0, description="time for what is in flight of a partition that moves away")
    retry_delays_s: Annotated[tuple[float, ...], NoDecode] = Field(
        (5.0, 30.0, 120.0), description="waits of an event whose photos are not to be had, comma-separated"
    )
    dead_letter_share: float = Field(
        0.5, gt=0, le=1, description="the scorer stops when more of the last events became dead letters"
    )
    dead_letter_window: int = Field(500, ge=1, description="how many events that share is taken of")
    stuck_after_s: float = Field(
        60.0, gt=0, description="an event in flight for longer is logged with what it waits for"
    )
    health_port: int = Field(0, ge=0, le=65535, description="port of /livez and /readyz; 0: none")
    events_per_s: float = Field(0.0, ge=0, description="listings a scorer starts a second; 0: no limit")

    model: str = Field("image_score", description="name of the model at Triton")
    inferences: int = Field(64, ge=1, le=1024, description="photos at Triton at once")
    infer_priority: int = Field(0, ge=0, le=2, description="priority at Triton: 1 first, 2 for a backfill, 0 unset")
    infer_timeout_s: float = Field(10.0, gt=0, description="one inference, before it is tried again")

    listings_in_flight: int = Field(512, ge=1, le=100_000, description="listings a scorer works on at once")
    photo_bytes_in_flight: int = Field(128 * 2**20, ge=2**20, description="bytes of photos a scorer holds at once")
    commit_interval_s: float = Field(1.0, gt=0, description="offsets are committed this often")
    drain_timeout_s: float = Field(20.0, gt=0, description="time for what is in flight when the scorer stops")

    fetches: int = Field(64, ge=1, le=4096, description="photos fetched at once")
    fetches_per_host: int = Field(32, ge=1, le=4096, description="photos fetched from one host at once")
    fetch_timeout_s: float = Field(10.0, gt=0, description="one try to fetch a photo, redirects included")
    fetch_attempts: int = Field(4, ge=1, le=100, description="tries before a photo is given up as unavailable")
    fetch_redirects: int = Field(3, ge=0, le=20, description="redirects followed")
    fetch_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="hosts (name or name:port, comma-separated) that may be fetched though not public"
    )
    max_photo_bytes: int = Field(15 * 2**20, ge=1024, description="largest photo file")
    max_pixels: int = Field(50_000_000, ge=1, description="largest photo, width x height")

    tombstone_days: float = Field(
        30.0, gt=0, description="how long Redis remembers a deletion; more than the topic's retention"
    )
    tip_threshold: float = Field(
        0.0, ge=0, le=1, description="least probability of a tip; each issue has a threshold of its own, too"
    )
    model_metrics: str = Field("", description="metrics.json of the served model, with those; empty: the shipped one")
    cover_margin: float = Field(
        0.08, ge=0, le=1, description="how much better another photo must be to become the cover"
    )

    notices_per_day: int = Field(3, ge=1, le=100, description="notices a seller gets in a day, by their calendar")
    notices_digest_from: int = Field(3, ge=2, le=100, description="listings with the same best tip that make a digest")
    notices_good_from: float = Field(0.7, ge=0, le=1, description="score from which a listing gets no tips")
    notices_quiet_from: time = Field(time(21), description="start of the quiet hours, by the seller's clock")
    notices_quiet_until: time = Field(time(8), description="end of the quiet hours; the same as their start: none")
    notices_not_helpful: float = Field(
        0.5, gt=0, le=1, description="a kind of tip is switched off when more of its votes are not helpful"
    )
    notices_votes: int = Field(20, ge=1, description="votes that a kind of tip needs before it can be switched off")
    notices_metrics_port: int = Field(0, ge=0, le=65535, description="port of the notices app's /metrics; 0: none")
    notices_clock: Literal["wall", "events"] = Field(
        "wall", description="what ends a wait: the wall clock, or the times of events (for replays and tests)"
    )

    search: str = Field("", description="OpenSearch or Elasticsearch, http(s)://[user:password@]host:port")
    search_api_key: SecretStr = Field(SecretStr(""), description="Elasticsearch API key, instead of a user")
    search_ssl_ca: str = Field("", description="PEM file of the authority that signed it; empty: the system's")
    search_index: str = Field("listings", description="the index, or an alias of it; a listing's id is its document's")
    search_field: str = Field("image_score", description="the field that the score is written to")
    index_bulk: int = Field(500, ge=1, le=10_000, description="updates in one request")
    index_missing: Literal["upsert", "skip"] = Field(
        "upsert", description="a listing without a document gets one with the score alone, or is skipped and counted"
    )

    lookup_budget_s: float = Field(0.02, gt=0, le=10, description="a lookup answers within this time")
    lookup_neutral: float = Field(0.5, ge=0, le=1, description="the score of a listing that has none")
    lookup_cache: int = Field(100_000, ge=0, description="listings that the lookup service keeps; 0: none")
    lookup_ttl_s: float = Field(60.0, gt=0, description="longest that a kept record is used, if Redis tells nothing")
    lookup_replicas: bool = Field(False, description="read from replicas, with Sentinel or a Cluster")
    lookup_http: int = Field(8080, ge=1, le=65535, description="HTTP port of the lookup service")
    lookup_grpc: int = Field(8081, ge=1, le=65535, description="gRPC port of the lookup service")

    studio_host: str = Field("127.0.0.1", description="address the studio listens on; 0.0.0.0: all")
    studio_port: int = Field(8090, ge=1, le=65535, description="port of the studio")
    studio_operator_token: SecretStr = Field(
        SecretStr(""), description="opens the operators' page; empty: one is made up and printed at the start"
    )
    studio_minutes: float = Field(30.0, gt=0, description="a session that is idle for so long ends, with its photos")
    studio_photos: int = Field(20, ge=1, le=100, description="photos of one session")
    studio_memory: int = Field(
        512 * 2**20, ge=2**20, description="bytes of photos of all sessions; the idlest go first"
    )
    studio_uploads: str = Field("60/minute", description="photos from one address: COUNT/second, minute, hour or day")
    studio_keep: str = Field(
        "", description="folder that uploaded photos are kept in, which the page says; empty: none"
    )
    studio_embed: str = Field("", description="origins that may show the studio in a frame, space-separated; needs TLS")
    studio_scorers: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="health ports of the scorers, host:port, comma-separated: what they have in flight"
    )

    @field_validator("fetch_allow", "studio_scorers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(host.strip().lower() for host in value.split(",") if host.strip())
        return value

    @field_validator("retry_delays_s", mode="before")
    @classmethod
    def _split_numbers(cls, value: object) -> object:
        return tuple(part for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def load(**overrides: Any) -> Settings:
    """Return the settings, with `overrides` (those not None) from the command line.

    Raises:
        SettingsError: a value is out of range; names the setting, its variable and the value.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = [f"{describe(e)}; set it by {ENV_PREFIX}{str(e['loc'][0]).upper()}" for e in error.errors()]
        raise SettingsError("wrong settings: " + "; ".join(lines)) from None


def origin(name: str, overrides: dict[str, Any]) -> str:
    """Return where a setting's value came from: command line, environment or default."""
    if overrides.get(name) is not None:
        return "command line"
    variable = f"{ENV_PREFIX}{name.upper()}"
    return f"environment {variable}" if os.environ.get(variable) else "default"


def shown(value: object) -> str:
    """Return a setting's value for people: secrets masked, passwords in URLs too."""
    if isinstance(value, SecretStr):
        return "********" if value.get_secret_value() else ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    text = str(value)
    if "://" in text and "@" in text:
        scheme, rest = text.split("://", 1)
        user = rest.rsplit("@", 1)[0].split(":", 1)[0]
        return f"{scheme}://{user}:********@{rest.rsplit('@', 1)[1]}"
    return text


def environment(settings: Settings) -> dict[str, str]:
    """Return the settings as environment variables, for a child process."""
    values = {}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        values[f"{ENV_PREFIX}{name.upper()}"] = text
    return values
