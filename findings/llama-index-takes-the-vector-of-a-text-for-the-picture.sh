#!/usr/bin/env bash
# LlamaIndex: an IngestionPipeline gives a picture the embedding of its text, and the index of pictures keeps it.
#
# Versions: llama-index-core 0.14.25. Seen on 2026-11-30.
# Behaviour: a MultiModalEmbedding that is a step of an IngestionPipeline is asked for the text of each ImageNode (the
#   caption, or the metadata, or ""), never for its picture. The vector stays on the node. MultiModalVectorStoreIndex, which
#   asks for the picture of a node without a vector, asks nothing of one that has a vector, and stores the text's among
#   those of pictures. Without the pipeline it stores the picture's.
# Output seen (what the embedding was asked for, and the vector that the index has for the picture):
#   index alone: asked for ['image a.jpg'], stored [1.0, 0.0]
#   pipeline, then index: asked for ['text name: a.jpg'], stored [0.0, 1.0]
# Why it matters: the two calls go together in many programs. The index then ranks pictures by their file names, without an
#   error. Leave the embedding out of the pipeline.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet llama-index-core==0.14.25
venv/bin/python - <<'PYTHON'
import sys

from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.indices import MultiModalVectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import ImageNode

asked = []


class Telling(MultiModalEmbedding):
    """Pictures are [1, 0], texts [0, 1]."""

    def _get_image_embedding(self, img_file_path):
        asked.append(f"image {img_file_path}")
        return [1.0, 0.0]

    async def _aget_image_embedding(self, img_file_path):
        return self._get_image_embedding(img_file_path)

    def _get_text_embedding(self, text):
        asked.append(f"text {text}")
        return [0.0, 1.0]

    def _get_query_embedding(self, query):
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query):
        return self._get_text_embedding(query)


def stored(through_pipeline: bool) -> tuple[list[str], list[float]]:
    asked.clear()
    embedding = Telling()
    nodes = [ImageNode(image_path="a.jpg", metadata={"name": "a.jpg"})]
    if through_pipeline:
        nodes = IngestionPipeline(transformations=[embedding]).run(nodes=nodes)
    index = MultiModalVectorStoreIndex(nodes, embed_model=embedding, image_embed_model=embedding)
    return list(asked), index.image_vector_store.get(nodes[0].node_id)


alone, piped = stored(False), stored(True)
print(f"index alone: asked for {alone[0]}, stored {alone[1]}")
print(f"pipeline, then index: asked for {piped[0]}, stored {piped[1]}")
as_stated = alone == (["image a.jpg"], [1.0, 0.0]) and piped == (["text name: a.jpg"], [0.0, 1.0])
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
