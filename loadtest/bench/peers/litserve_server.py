"""A LitServe server that batches SigLIP 2 as LitServe's documentation shows, in Transformers or in OpenVINO.

Its batcher collects up to `--batch-size` requests within `--batch-timeout-s`. `decode_request` decodes each, `batch`
keeps them as a list, and `predict` runs processor and model on the list. Each image is padded to the largest budget of
its batch, as the processor pads to `max_num_patches`. `--counts` is a file that gets a line for each batch: patches,
and rows computed.
"""

import argparse
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import litserve  # type: ignore[import-not-found, unused-ignore]
import torch
from fastapi import Request
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Siglip2VisionModel
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

# An image, and the most patches that it may have.
Wanted = tuple[Image.Image, int]


# From a processor's tensors to pooled vectors `[B, D]`, float32.
Encoder = Callable[[dict[str, Tensor]], Tensor]


class EmbedImages(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    def __init__(self, options: argparse.Namespace, **batching: Any) -> None:
        super().__init__(**batching)
        self._options = options

    def setup(self, device: str) -> None:
        options = self._options
        torch.set_num_threads(options.threads)
        self._processor = Siglip2ImageProcessorPil()
        self._encode = _ENCODERS[options.engine](options.model, options.dtype, options.threads)

    def decode_request(self, request: Request) -> Wanted:
        """LitServe passes the form of a multipart request."""
        picture = Image.open(BytesIO(request["image"].file.read()))
        return picture.convert("RGB"), int(request["max_tokens"])

    def batch(self, inputs: list[Wanted]) -> list[Wanted]:
        return list(inputs)

    @torch.inference_mode()
    def predict(self, wanted: list[Wanted]) -> Tensor:
        inputs = self._processed(wanted)
        mask = inputs["pixel_attention_mask"]
        with open(self._options.counts, "a", encoding="ascii") as counts:
            counts.write(f"{int(mask.sum())} {mask.numel()}\n")
        return torch.nn.functional.normalize(self._encode(inputs), dim=-1)

    def _processed(self, wanted: list[Wanted]) -> dict[str, Tensor]:
        """One call of the processor for each budget; it takes one for all the images of a call."""
        budgets = [budget for _, budget in wanted]
        if len(set(budgets)) == 1:
            images = [image for image, _ in wanted]
            return dict(self._processor(images=images, max_num_patches=budgets[0], return_tensors="pt"))
        parts = [self._processor(images=[image], max_num_patches=most, return_tensors="pt") for image, most in wanted]
        return {
            "pixel_values": pad_sequence([part["pixel_values"][0] for part in parts], batch_first=True),
            "pixel_attention_mask": pad_sequence([part["pixel_attention_mask"][0] for part in parts], batch_first=True),
            "spatial_shapes": torch.cat([part["spatial_shapes"] for part in parts]),
        }

    def unbatch(self, output: Tensor) -> list[Tensor]:
        return list(output)

    def encode_response(self, output: Tensor) -> dict[str, list[float]]:
        return {"embedding": output.tolist()}


def _transformers(model: Path, dtype: str, threads: int) -> Encoder:
    encoder = Siglip2VisionModel.from_pretrained(model, dtype=dtype).eval()

    def encode(inputs: dict[str, Tensor]) -> Tensor:
        pixels = inputs["pixel_values"].to(encoder.dtype)
        pooled: Tensor = encoder(**inputs | {"pixel_values": pixels}).pooler_output.float()
        return pooled

    return encode


def _openvino(model: Path, dtype: str, threads: int) -> Encoder:
    """A batch is one call, so the hint is that of a single call. Shapes are dynamic, since batches are."""
    import openvino as ov  # type: ignore[import-not-found, unused-ignore]

    from loadtest.bench.peers.openvino_model import PRECISIONS, exported

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(threads)}
    if dtype in PRECISIONS:
        settings["INFERENCE_PRECISION_HINT"] = PRECISIONS[dtype]
    compiled = ov.Core().compile_model(exported(model, model, dtype), "CPU", settings)

    def encode(inputs: dict[str, Tensor]) -> Tensor:
        kinds = {"pixel_values": torch.float32}
        arrays = {name: tensor.to(kinds.get(name, torch.int64)).numpy() for name, tensor in inputs.items()}
        return torch.from_numpy(compiled(arrays)[0].copy())

    return encode


_ENCODERS: dict[str, Callable[[Path, str, int], Encoder]] = {"transformers": _transformers, "openvino": _openvino}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--engine", choices=_ENCODERS, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--batch-timeout-s", type=float, required=True)
    parser.add_argument("--counts", required=True)
    options = parser.parse_args()
    api = EmbedImages(options, max_batch_size=options.batch_size, batch_timeout=options.batch_timeout_s)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=options.workers)
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
