"""What a job holds is bounded by bytes and by rows, whatever the order in which pictures get ahead."""

from hypothesis import given
from hypothesis import strategies as st

from service.jobs.window import Window

SIZES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=60)


@given(sizes=SIZES, max_bytes=st.integers(1, 100), max_pictures=st.integers(1, 8), data=st.data())
def test_bytes_and_pictures_are_bounded_and_every_picture_gets_in(
    sizes: list[tuple[int, int]], max_bytes: int, max_pictures: int, data: st.DataObject
) -> None:
    """Files of some bytes become rows of fewer or none, in any order; rows leave in order."""
    window = Window(max_bytes=max_bytes, max_pictures=max_pictures)
    waiting = list(range(len(sizes)))
    held: dict[int, int] = {}
    inside: list[int] = []
    while waiting or inside:
        moves = []
        if waiting and window.has_room(sum(sizes[waiting[0]])):
            moves.append("enter")
        if held:
            moves.append("free")
        if inside and inside[0] not in held:
            moves.append("leave")
        # Never stuck: a picture may enter, or one inside has something to give back.
        move = data.draw(st.sampled_from(moves))
        if move == "enter":
            number = waiting.pop(0)
            window.enter(sum(sizes[number]))
            held[number] = sum(sizes[number])
            inside.append(number)
        elif move == "free":
            number = data.draw(st.sampled_from(sorted(held)))
            left = data.draw(st.sampled_from([0, min(sizes[number][1], held[number])]))
            window.free(held[number] - left)
            held[number] = left
            if not left:
                del held[number]
        else:
            inside.pop(0)
            window.leave()
        assert window.held_bytes == sum(held.values())
        assert window.held_bytes <= max_bytes or sum(size > 0 for size in held.values()) == 1
        assert window.pictures == len(inside) <= max_pictures
