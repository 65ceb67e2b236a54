import asyncio

from service.http.protocol.departure import Departure


def test_who_watches_is_told_once_the_client_leaves_and_not_after_the_watch() -> None:
    told: list[str] = []
    departure = Departure(lambda: told.append("listens"))
    departure.watch(lambda: told.append("left"))
    assert told == ["listens"]
    departure.tell()
    departure.unwatch()
    departure.tell()
    assert told == ["listens", "left"]


def test_who_watches_too_late_is_told_in_the_next_turn() -> None:
    told: list[str] = []

    async def main() -> None:
        departure = Departure(lambda: told.append("listens"))
        departure.tell()
        departure.watch(lambda: told.append("left"))
        assert told == []
        await asyncio.sleep(0)
        assert told == ["left"]
        departure.watch(lambda: told.append("again"))
        departure.unwatch()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert told == ["left"]


def test_a_scope_has_a_departure_only_under_our_server() -> None:
    scope: dict[str, object] = {"type": "http"}
    assert Departure.of(scope) is None
    assert Departure.of({"extensions": {"http.response.trailers": {}}}) is None
    departure = Departure(int)
    departure.put(scope)
    assert Departure.of(scope) is departure
