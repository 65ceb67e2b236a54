"""A LitServe server that batches Transformers' SigLIP 2 as LitServe's documentation shows.

Its batcher collects up to `--batch-size` requests within `--batch-timeout-s`. `decode_request` decodes each, `batch`
keeps them as a list, and `predict` runs processor and model on the list, padded to the cap.
"""

import argparse
from io import BytesIO
from typing import Any

import litserve  # type: ignore[import-not-found, unused-ignore]
import torch
from fastapi import Request
from PIL import Image
from transformers import Siglip2VisionModel
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil


class EmbedImages(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    def __init__(self, model: str, max_tokens: int, dtype: str, threads: int, **batching: Any) -> None:
        super().__init__(**batching)
        self._model, self._max_tokens, self._dtype, self._threads = model, max_tokens, dtype, threads

    def setup(self, device: str) -> None:
        torch.set_num_threads(self._threads)
        self._processor = Siglip2ImageProcessorPil(max_num_patches=self._max_tokens)
        self._encoder = Siglip2VisionModel.from_pretrained(self._model, dtype=self._dtype).to(device).eval()

    def decode_request(self, request: Request) -> Image.Image:
        """LitServe passes the form of a multipart request."""
        picture = Image.open(BytesIO(request["image"].file.read()))
        return picture.convert("RGB")

    def batch(self, inputs: list[Image.Image]) -> list[Image.Image]:
        return list(inputs)

    @torch.inference_mode()
    def predict(self, images: list[Image.Image]) -> torch.Tensor:
        inputs = self._processor(images=images, return_tensors="pt")
        inputs["pixel_values"] = inputs["pixel_values"].to(self._encoder.dtype)
        pooled = self._encoder(**inputs).pooler_output.float()
        return torch.nn.functional.normalize(pooled, dim=-1)

    def unbatch(self, output: torch.Tensor) -> list[torch.Tensor]:
        return list(output)

    def encode_response(self, output: torch.Tensor) -> dict[str, list[float]]:
        return {"embedding": output.tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-tokens", type=int, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--batch-timeout-s", type=float, required=True)
    options = parser.parse_args()
    api = EmbedImages(
        options.model, options.max_tokens, options.dtype, options.threads,
        max_batch_size=options.batch_size, batch_timeout=options.batch_timeout_s,
    )  # fmt: skip
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=options.workers)
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
