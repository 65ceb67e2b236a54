#!/usr/bin/env bash
# LlamaIndex: an index of pictures leaves out every picture that has neither a text nor metadata.
#
# Versions: llama-index-core 0.14.25. Seen on 2026-11-30.
# Behaviour: MultiModalVectorStoreIndex(nodes) drops nodes whose text and metadata are empty before it looks at their kind,
#   as an index of texts does. An ImageNode with a path or bytes alone is such a node. One line on standard output says that
#   some nodes are missing content. insert_nodes of the same index takes the same node.
# Output seen (how many of one picture are in the index):
#   Some nodes are missing content, skipping them...
#   made from the node: 0
#   made from the node with metadata: 1
#   node inserted later: 1
# Why it matters: a folder of pictures becomes an empty index, and every search finds nothing, without an error. Give each
#   node its file name as metadata.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet llama-index-core==0.14.25
venv/bin/python - <<'PYTHON'
import sys

from llama_index.core import MockEmbedding
from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.indices import MultiModalVectorStoreIndex
from llama_index.core.schema import ImageNode


class Constant(MockEmbedding, MultiModalEmbedding):
    def _get_image_embedding(self, img_file_path):
        return [1.0, 0.0]

    async def _aget_image_embedding(self, img_file_path):
        return [1.0, 0.0]


def index(nodes: list[ImageNode]) -> MultiModalVectorStoreIndex:
    embedding = Constant(embed_dim=2)
    return MultiModalVectorStoreIndex(nodes, embed_model=embedding, image_embed_model=embedding)


def count(made: MultiModalVectorStoreIndex) -> int:
    return len(made.image_vector_store.data.embedding_dict)


later = index([])
later.insert_nodes([ImageNode(image_path="a.jpg")])
found = {
    "made from the node": count(index([ImageNode(image_path="a.jpg")])),
    "made from the node with metadata": count(index([ImageNode(image_path="a.jpg", metadata={"name": "a.jpg"})])),
    "node inserted later": count(later),
}
for name, number in found.items():
    print(f"{name}: {number}")
sys.exit(0 if list(found.values()) == [0, 1, 1] else "the behaviour has changed")
PYTHON
