"""Triton's explicit model control: serve another version, or a candidate beside it, without losing a request.

Triton loads the new version first, sends new requests to it, and unloads the old one when its last request is answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from stream.errors import DependencyError
from stream.settings import Settings
from triton_models.errors import ModelError
from triton_models.serving.versions import MODEL, SHADOW, Repository

_LOAD_S = 120.0


@contextmanager
def connected(settings: Settings) -> Iterator[grpcclient.InferenceServerClient]:
    """Yield a client of the Triton at `settings.triton`.

    Raises:
        DependencyError: it does not answer.
        ModelError: it refuses what it is asked.
    """
    files = {"root_certificates": settings.triton_ssl_ca, "private_key": settings.triton_ssl_key}
    files["certificate_chain"] = settings.triton_ssl_cert
    options = {name: path or None for name, path in files.items()} if settings.triton_tls else {}
    try:
        with grpcclient.InferenceServerClient(settings.triton, ssl=settings.triton_tls, **options) as client:
            yield client
    except InferenceServerException as error:
        if error.status() == "StatusCode.UNAVAILABLE":
            text = f"Triton at {settings.triton} does not answer: start it, or set IMAGE_SCORE_TRITON"
            raise DependencyError(text) from None
        raise ModelError(f"Triton at {settings.triton}: {error.message()}") from None


def states(settings: Settings) -> dict[tuple[str, int], str]:
    """Return what Triton says of every version that it knows: (model, version) -> READY, UNAVAILABLE, ..."""
    with connected(settings) as client:
        index = client.get_model_repository_index()
        return {(m.name, int(m.version)): m.state for m in index.models if m.version and m.name in (MODEL, SHADOW)}


def promote(settings: Settings, repository: Repository, number: int) -> None:
    """Serve a version. When Triton cannot load it, the one before goes on being served.

    Raises:
        ModelError: it is not there, or Triton cannot load it.
        DependencyError: Triton does not answer; nothing has changed.
    """
    with connected(settings) as client:
        client.is_server_ready()
        before = repository.config.read_text()
        repository.serve(number)
        try:
            client.load_model(MODEL, client_timeout=_LOAD_S)
            if not client.is_model_ready(MODEL, str(number)):
                raise ModelError(f"version {number} was loaded, but is not ready: see Triton's log")
        except (InferenceServerException, ModelError):
            repository.config.write_text(before)
            raise


def rollback(settings: Settings, repository: Repository) -> int:
    """Serve the version that was served before; return its number.

    Raises:
        ModelError: there is none, or as `promote`.
    """
    previous = repository.previous
    if previous is None:
        raise ModelError("nothing was promoted yet, so there is nothing to go back to")
    promote(settings, repository, previous)
    return previous


@contextmanager
def shadow(settings: Settings, repository: Repository, number: int) -> Iterator[str]:
    """Serve a candidate version beside the model; yield its model name; take it away at the end."""
    repository.add_shadow(number)
    try:
        with connected(settings) as client:
            client.load_model(SHADOW, client_timeout=_LOAD_S)
        yield SHADOW
    finally:
        repository.remove_shadow()
        with connected(settings) as client:
            client.unload_model(SHADOW)
