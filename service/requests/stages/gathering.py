"""Images of one request that are handed to the engine together."""

import asyncio

# A device that is idle would begin with the first image alone, and the host's work on a pack of one or two images is
# three times that on a full one, by image. A request is answered with its last image, so its others lose nothing while
# they wait for that one, but what the device takes for all of them in the end.
_MOST_DEVICE_S = 0.002
# Images that take long to decode are not worth waiting for.
_LONGEST_S = 0.02


class Gathering:
    """Holds decoded images back until the last one of their request is decoded, or the device has enough to do with
    them. Belongs to one event loop."""

    def __init__(self, images: int) -> None:
        """images: those that are to come. Each has to `join` or to `leave`, once."""
        self._coming = images
        self._held_device_s = 0.0
        self._released: asyncio.Event | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def join(self, device_s: float) -> None:
        """An image is decoded; returns when it may be handed over. device_s: what it takes of the device."""
        self._held_device_s += device_s
        if self._coming == 1 or self._held_device_s > _MOST_DEVICE_S:
            self.leave()
            self._release()
            return
        self._coming -= 1
        if self._released is None:
            self._released = asyncio.Event()
            self._timer = asyncio.get_running_loop().call_later(_LONGEST_S, self._release)
        await self._released.wait()

    def leave(self) -> None:
        """An image comes to nothing, or goes by itself."""
        self._coming -= 1
        if not self._coming:
            self._release()

    def _release(self) -> None:
        if self._released is not None:
            assert self._timer is not None
            self._timer.cancel()
            self._released.set()
        self._released, self._held_device_s = None, 0.0
