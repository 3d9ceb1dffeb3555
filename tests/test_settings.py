"""Settings: where they come from, what is refused, and what the clients make of TLS and SASL."""

from __future__ import annotations

import pytest

from stream.errors import SettingsError
from stream.kafka import client_config
from stream.settings import Settings, environment, load, origin, shown


def test_command_line_beats_environment_beats_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (load().fetches, origin("fetches", {})) == (64, "default")
    monkeypatch.setenv("IMAGE_SCORE_FETCHES", "7")
    assert (load().fetches, origin("fetches", {})) == (7, "environment IMAGE_SCORE_FETCHES")
    assert (load(fetches="8").fetches, origin("fetches", {"fetches": "8"})) == (8, "command line")


def test_wrong_setting_names_field_value_and_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGE_SCORE_FETCHES", "many")
    with pytest.raises(SettingsError, match=r"fetches: .*\(got 'many'\); set it by IMAGE_SCORE_FETCHES"):
        load()


def test_environment_of_a_child_gives_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given = load(kafka="a:1", fetch_allow="x:1,y", kafka_sasl_password="p", max_pixels=7, triton_tls=True)
    for name, value in environment(given).items():
        monkeypatch.setenv(name, value)
    assert load() == given


def test_every_setting_has_a_variable() -> None:
    assert set(environment(load())) == {f"IMAGE_SCORE_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (load(kafka_sasl_password="secret").kafka_sasl_password, "********"),
        (load().kafka_sasl_password, ""),
        ("rediss://user:secret@cache:6379/0", "rediss://user:********@cache:6379/0"),
        ("redis://:p@ss@cache:6379/0", "redis://:********@cache:6379/0"),
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        (("a", "b"), "a,b"),
    ],
)
def test_secrets_are_never_shown(value: object, text: str) -> None:
    assert shown(value) == text


def test_kafka_over_sasl_and_tls() -> None:
    settings = load(
        kafka="b:9093",
        kafka_security_protocol="sasl_ssl",
        kafka_sasl_mechanism="SCRAM-SHA-512",
        kafka_sasl_username="u",
        kafka_sasl_password="p",
        kafka_ssl_ca="/ca.pem",
    )
    expected = {
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "u",
        "sasl.password": "p",
        "ssl.ca.location": "/ca.pem",
    }
    assert client_config(settings).items() >= expected.items()


def test_plain_kafka_has_no_security_settings() -> None:
    assert not [name for name in client_config(load(kafka="b:9092")) if name.startswith(("sasl", "ssl"))]
