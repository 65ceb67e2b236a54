"""What one request holds. Tokens and bytes are charged to it, and given back however it ends."""

import math
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from service.errors import ServiceError
from service.fetching.urls import Url
from service.requests.admission.admission import Admission
from service.requests.cache.lookups import Lookup
from service.requests.documents.rows import Document

# An id of a text is an object, to which a list refers.
_ID_BYTES = 28 + 8
_EMPTY_TEXT_BYTES = sys.getsizeof("")


class Hold:
    """What one request holds: its images and texts, and the bytes and tokens charged to it. Its end gives all back.

    images: as they were sent; each is empty once it is decoded, and until it is fetched. urls: of those to be fetched,
    by index. texts: or the ids of texts. documents: which of the images become one vector with texts of their own; if
    there are any, every image is in one of them, and there are no other texts. faults: of images that could not be read
    as they came, by index; each is empty. digests: of images, by index, where they are known. admitted: whether tokens
    were taken. bulk: the class of the request, known before tokens are taken. lookup: of a request that was let in for
    pictures that may be known. image_fields: of each image, the field that brought it, which its errors name; empty if
    all are called `image`.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._tokens = self._bytes = 0
        self.images: list[bytes] = []
        self.urls: dict[int, Url] = {}
        self.texts: list[str | list[int]] = []
        self.documents: list[Document] = []
        self.faults: dict[int, ServiceError] = {}
        self.digests: dict[int, bytes] = {}
        self.admitted = False
        self.bulk = False
        self.lookup: Lookup | None = None
        self.image_fields: Sequence[str] = ()
        self._coming_bytes: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.give_back(tokens=self._tokens, size=self._bytes, bulk=self.bulk)
        self._tokens = self._bytes = 0
        if self.lookup is not None:
            self.lookup.end()
        self.images, self.urls, self.texts, self.documents, self._coming_bytes = [], {}, [], [], {}
        self.faults = {}

    @property
    def held_bytes(self) -> int:
        """Bytes charged."""
        return self._bytes

    def reserve_bytes(self, size: int) -> None:
        """Makes the bytes charged exactly `size`. Raises `Overloaded` if they do not fit, and then changes nothing."""
        if size > self._bytes:
            # A body that has begun to come is not given up for what others bring meanwhile.
            self._admission.take_bytes(size - self._bytes, bulk=self.bulk and not self._bytes)
        elif size < self._bytes:
            self._admission.give_back(size=self._bytes - size)
        self._bytes = size

    def keep(
        self,
        images: list[bytes],
        texts: Sequence[str | list[int]] = (),
        *,
        urls: Mapping[int, Url] | None = None,
        documents: Sequence[Document] = (),
        digests: Sequence[bytes] = (),
        faults: Mapping[int, ServiceError] | None = None,
    ) -> None:
        """From now on the request holds these and nothing else of its body. Raises `Overloaded`.

        urls: of images that are empty, by index; by default those that it holds. digests: of all images, if they were
        computed while the images came; by default those that it knows of the same images. faults: by index; by default
        those that it has.
        """
        kept = dict(self.urls if urls is None else urls)
        size = sum(map(len, images)) + sum(map(_bytes_of, texts)) + sum(map(len, kept.values()))
        size += sum(_bytes_of(part) for document in documents for part in document if isinstance(part, str))
        self.reserve_bytes(size)
        if digests or images is not self.images:
            self.digests = dict(enumerate(digests))
        self.images, self.texts, self.urls, self.documents = images, list(texts), kept, list(documents)
        self.faults = dict(self.faults if faults is None else faults)

    def coming_bytes(self, index: int) -> int:
        """Bytes charged for an image that is being fetched."""
        return self._coming_bytes.get(index, 0)

    def check_coming(self, index: int, size: int) -> None:
        """Raises `Overloaded` if an image that is being fetched could not have `size` bytes now."""
        self._admission.check_bytes(size - self.coming_bytes(index))

    def reserve_coming(self, index: int, size: int) -> None:
        """Makes the bytes charged for an image that is being fetched exactly `size`. Raises `Overloaded` if they do not
        fit, and then changes nothing."""
        self.reserve_bytes(self._bytes - self.coming_bytes(index) + size)
        self._coming_bytes[index] = size

    def put_image(self, index: int, data: bytes) -> None:
        """The image is fetched, and its bytes are charged."""
        assert self.coming_bytes(index) == len(data), f"{self.coming_bytes(index)} bytes charged for {len(data)}"
        self.images[index] = data
        del self._coming_bytes[index]
        self.reserve_bytes(self._bytes - len(self.urls.pop(index)))

    def drop_image(self, index: int) -> None:
        """The image is decoded: its bytes are let go and given back."""
        self.reserve_bytes(self._bytes - len(self.images[index]))
        self.images[index] = b""

    def check_queue(self) -> None:
        """Raises `Overloaded` if the queue is full."""
        self._admission.check_queue(None, bulk=self.bulk)

    def take_tokens(self, tokens: int, *, within_s: float = math.inf) -> None:
        """Raises `Invalid` or `Overloaded`, as `Admission.take_tokens`."""
        self._admission.take_tokens(tokens, within_s=within_s, bulk=self.bulk)
        self._tokens += tokens
        self.admitted = True

    def hand_over(self, size: int) -> None:
        """The answer is written: its queue tokens are free, and its `size` bytes are charged until they are sent."""
        self._admission.give_back(tokens=self._tokens, bulk=self.bulk)
        self._tokens = 0
        self._admission.charge_bytes(size)
        self._bytes += size


def _bytes_of(text: str | list[int]) -> int:
    """The memory of a text, whose characters take one, two or four bytes each, or of its ids."""
    return sys.getsizeof(text) - _EMPTY_TEXT_BYTES if isinstance(text, str) else _ID_BYTES * len(text)
