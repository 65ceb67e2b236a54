"""Images of a request that come from URLs: which settings allow them, and what their bytes are charged to."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

from service.errors import TooLarge
from service.fetching.allowlist import Allowed, Allowlist
from service.fetching.resolver import Resolver, SystemResolver
from service.fetching.turns import Turns
from service.fetching.urls import Url
from service.metrics import Metrics
from service.requests.admission.hold import Hold
from service.settings.settings import Settings

if TYPE_CHECKING:
    from service.fetching.fetcher import Fetcher


class UrlImages:
    """Fetches images into the requests that ask for them."""

    def __init__(self, allowlist: Allowlist, fetcher: "Fetcher | None", *, max_upload_bytes: int) -> None:
        """fetcher: None where the settings allow no URL. max_upload_bytes: the most that all images of one request may
        have."""
        self._allowlist, self._fetcher, self._max_upload_bytes = allowlist, fetcher, max_upload_bytes

    @classmethod
    def of(
        cls,
        settings: Settings,
        metrics: Metrics,
        *,
        resolver: Resolver | None = None,
        trace_headers: Callable[[], Sequence[tuple[str, str]]] = tuple,
    ) -> Self:
        """resolver: by default the system's. trace_headers: as in `Fetcher`."""
        allowlist = Allowlist(settings.url_allowlist, public=settings.allow_urls == "public")
        if allowlist.allowed == "off":
            # The client takes 3 MB.
            return cls(allowlist, None, max_upload_bytes=settings.max_upload_bytes)
        from service.fetching.fetcher import Fetcher

        fetcher = Fetcher(
            allowlist,
            resolver=resolver
            or SystemResolver(settings.max_url_fetches, interactive_share=settings.interactive_queue_share),
            timeout_s=settings.url_timeout_ms / 1000,
            turns=Turns(settings.max_url_fetches, interactive_share=settings.interactive_queue_share),
            count=lambda outcome: metrics.url_fetches.labels(outcome).inc(),
            trace_headers=trace_headers,
        )
        return cls(allowlist, fetcher, max_upload_bytes=settings.max_upload_bytes)

    @property
    def allowed(self) -> Allowed:
        return self._allowlist.allowed

    def read(self, text: str) -> Url:
        """Raises `Invalid` for a URL that may not be fetched."""
        return self._allowlist.read(text)

    async def fetch(self, hold: Hold, index: int) -> None:
        """Puts the image that `hold.urls` names into `hold`, and charges it before it is there.

        Raises `TooLarge` or `Overloaded` if it does not fit, and as `Fetcher.fetch`.
        """

        room = _Room(hold, index, self._max_upload_bytes)
        assert self._fetcher  # `read` refuses every URL otherwise
        fetched = False
        try:
            data = await self._fetcher.fetch(hold.urls[index], room, request=str(id(hold)), bulk=hold.bulk)
            hold.put_image(index, data)
            fetched = True
        finally:
            if not fetched:
                room.reserve(0)


class _Room:
    """What one image of a request is charged to. All of them together are bounded, like a body."""

    def __init__(self, hold: Hold, index: int, max_upload_bytes: int) -> None:
        self._hold, self._index, self._max_upload_bytes = hold, index, max_upload_bytes

    def check(self, size: int) -> None:
        """Raises `TooLarge` or `Overloaded`."""
        self._check_request(size)
        self._hold.check_coming(self._index, size)

    def reserve(self, size: int) -> None:
        """Raises `TooLarge` or `Overloaded`."""
        self._check_request(size)
        self._hold.reserve_coming(self._index, size)

    def _check_request(self, size: int) -> None:
        hold = self._hold
        if size and hold.held_bytes - hold.coming_bytes(self._index) + size > self._max_upload_bytes:
            raise TooLarge(
                f"the image under the URL, with all others of the request, is over {self._max_upload_bytes} bytes "
                "(max_upload_bytes)",
                param="image",
                reason="too_many_bytes",
            )
