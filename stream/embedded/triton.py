"""Embedded Triton: the server and its Python backend from the nvidia-pytriton package, on the CPU."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import sysconfig
import urllib.error
import urllib.request
from pathlib import Path

from stream.embedded.server import Server, free_port
from stream.errors import EmbeddedError
from triton_models import REPOSITORY


def _pytriton() -> Path:
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise EmbeddedError("no Triton server: pip install nvidia-pytriton (Linux, x86-64 or arm64)")
    return Path(spec.origin).parent


def _check_libpython() -> None:
    """The Python backend's stub links against libpython; Debian keeps that in a package of its own."""
    library = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    libdir = sysconfig.get_config_var("LIBDIR") or ""
    for candidate in (library, os.path.join(libdir, library)):
        try:
            ctypes.CDLL(candidate)
            return
        except OSError:
            continue
    package = library.removesuffix(".so.1.0")
    raise EmbeddedError(
        f"Triton's Python backend needs {library}, which is not here: apt-get install {package}, "
        "or use a Python built with --enable-shared"
    )


class EmbeddedTriton(Server):
    name = "triton"

    def __init__(self, max_pixels: int = 50_000_000, repository: Path = REPOSITORY) -> None:
        super().__init__()
        self.max_pixels = max_pixels
        self.repository = repository
        self.grpc_port, self.http_port, self.metrics_port = free_port(), free_port(), free_port()
        self.address = f"127.0.0.1:{self.grpc_port}"
        self.shm_prefix = f"image-score-{os.getpid()}-{self.grpc_port}"

    def _backends(self) -> Path:
        """Return a folder that holds the Python backend with the stub of the running Python."""
        source = _pytriton() / "tritonserver"
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = source / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not stub.exists():
            raise EmbeddedError(f"nvidia-pytriton has no Python {version} stub: use Python 3.9 to 3.12")
        target = self.folder / "backends" / "python"
        if not target.exists():
            target.mkdir(parents=True)
            for file in (*(source / "backends" / "python").iterdir(), stub):
                if not (target / file.name).exists():
                    (target / file.name).symlink_to(file)
        return target.parent

    def command(self) -> list[str]:
        _check_libpython()
        binary = _pytriton() / "tritonserver" / "bin" / "tritonserver"
        return [
            str(binary),
            f"--model-repository={self.repository}",
            "--model-control-mode=explicit",
            "--load-model=*",
            f"--backend-directory={self._backends()}",
            f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}",
            "--http-address=127.0.0.1",
            "--grpc-address=127.0.0.1",
            "--metrics-address=127.0.0.1",
            f"--http-port={self.http_port}",
            f"--grpc-port={self.grpc_port}",
            f"--metrics-port={self.metrics_port}",
            "--allow-gpu-metrics=false",
            "--exit-timeout-secs=1",
            "--log-info=false",
        ]

    def environment(self) -> dict[str, str]:
        env = super().environment()
        libraries = [str(_pytriton().parent / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR") or ""]
        env["LD_LIBRARY_PATH"] = os.pathsep.join([*libraries, env.get("LD_LIBRARY_PATH", "")]).strip(os.pathsep)
        env["IMAGE_SCORE_MAX_PIXELS"] = str(self.max_pixels)  # the model's own limit is the scorer's
        # The stub runs the first python on PATH: ours, with our packages.
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
        return env

    def is_ready(self) -> bool:
        url = f"http://127.0.0.1:{self.http_port}/v2/health/ready"
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
