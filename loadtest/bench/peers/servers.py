"""Commands of other makers' servers.

LitServe serves the same NaFlex model as Packlight does. Two others cannot:

- infinity (0.0.78) calls `get_image_features(pixel_values=...)` for whatever its processor returned. It drops
  `pixel_attention_mask` and `spatial_shapes`, without which a NaFlex model can neither place its patches nor tell them
  from padding. It is measured with a CLIP model of the same shape, whose images are all one square.
- OpenVINO Model Server is a program in C++ that comes as an archive or a container image. What pip installs under its
  name is a client. LitServe with OpenVINO inside (`litserve-openvino`) is what a user of pip can have.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.peers import environments

PEERS = ("litserve", "litserve-openvino", "infinity")
LITSERVE_ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[3]), "HF_HUB_OFFLINE": "1"}
INFINITY_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}

_PROGRAMS = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class LitServe:
    """engine: what computes, `transformers` or `openvino`. counts: the file in which it notes what it computed. Its
    workers share the cores evenly."""

    engine: str
    model: Path
    dtype: str
    workers: int
    batch_size: int
    counts: Path

    def command(self, folder: Path, port: int) -> list[str]:
        """Writes what the engine needs beside the model. folder: of the peers' environments. Raises
        `PeerUnavailable`."""
        options = {
            "engine": self.engine, "model": self.model, "port": port, "dtype": self.dtype, "workers": self.workers,
            "threads": max(1, len(os.sched_getaffinity(0)) // self.workers),
            "batch-size": self.batch_size, "batch-timeout-s": 0.01, "counts": self.counts,
        }  # fmt: skip
        given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        python = _python("openvino" if self.engine == "openvino" else "litserve", folder)
        if self.engine == "openvino":
            writing = [python, "-m", "loadtest.bench.peers.openvino_model", *[str(self.model)] * 2, self.dtype]
            environments.run(writing, LITSERVE_ENVIRONMENT)
        return [python, "-m", "loadtest.bench.peers.litserve_server", *given]


def infinity_command(model: Path, *, folder: Path, port: int, batch_size: int) -> list[str]:
    """On a CPU it computes in float32, whatever `--dtype` says. Raises `PeerUnavailable`."""
    return [
        str(environments.environment("infinity", folder) / "bin" / "infinity_emb"), "v2", "--model-id", str(model),
        "--served-model-name", "clip", "--engine", "torch", "--device", "cpu", "--no-bettertransformer",
        "--batch-size", str(batch_size), "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning",
    ]  # fmt: skip


def write_clip(model: Path, folder: Path) -> None:
    """A CLIP model into the folder `model`. Raises `PeerUnavailable`."""
    environments.run([_python("infinity", folder), str(_PROGRAMS / "write_clip.py"), str(model)])


def _python(name: str, folder: Path) -> str:
    return str(environments.environment(name, folder) / "bin" / "python")
