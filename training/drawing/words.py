"""Words without meaning: a vocabulary for each document, and numbers, dates, prices and codes as documents have.

Knows nothing of how they are set.
"""

# ruff: noqa: SIM905 -- word lists read better on one line.

from training.drawing.chance import Rng, between, happens, integer, log_between, pick

_STARTS = "b d g h j k l m n p r s t v w br ch cl cr dr fl fr gr kl pl pr qu sc sl sp st str th tr wh".split()
_MIDDLES = "a e i o u a e i o ai au ea ee ie io oa oo ou ue y".split()
_ENDS = ["", "", "", *"n r s t l d m ng nd st rt th ss x ll ment tion ness er ly p b".split()]
_SHORT = "a an the of in to and for on is it as by at or if be no so up".split()
TILL_WORDS = (
    "TOTAL SUBTOTAL CASH CHANGE TAX GST VAT QTY ITEM PRICE AMOUNT DISC ROUNDING CARD VISA INVOICE RECEIPT DATE TIME "
    "CASHIER TABLE ORDER NO. TEL FAX REG STORE BILL MEMBER POINTS BALANCE SERVICE NET DUE PAID APPROVED"
).split()


class Vocabulary:
    """A few dozen words, some of them much more common than others, as in a language."""

    def __init__(self, rng: Rng, count: int = 60) -> None:
        self._rng = rng
        self._words = [_word(rng) for _ in range(count)]

    def word(self) -> str:
        if happens(self._rng, 0.28):
            return pick(self._rng, _SHORT)
        return self._words[int(len(self._words) * self._rng.random() ** 1.7)]

    def name(self, longest: int = 3) -> str:
        """Returns one to `longest` words, each with a capital."""
        return " ".join(pick(self._rng, self._words).capitalize() for _ in range(integer(self._rng, 1, longest)))

    def text(self, length: int) -> str:
        """Returns about `length` characters of sentences, at least one word."""
        words: list[str] = []
        left, fresh = length, True
        while left > 0 or not words:
            word = self.word()
            if fresh:
                word = word.capitalize()
            fresh = happens(self._rng, 0.09)
            word += "." if fresh else "," if happens(self._rng, 0.07) else ""
            words.append(word)
            left -= len(word) + 1
        return " ".join(words)


def _word(rng: Rng) -> str:
    parts = [
        pick(rng, _STARTS) + pick(rng, _MIDDLES) + pick(rng, _ENDS) for _ in range(pick(rng, (1, 2, 3), (4, 5, 2)))
    ]
    return "".join(parts)[:13]


def price(rng: Rng, largest: float = 300) -> str:
    return f"{log_between(rng, 0.3, largest):.2f}"


def number(rng: Rng) -> str:
    """Returns a whole number, an amount, a percentage or a negative amount."""
    value = log_between(rng, 1, 100_000)
    way = pick(rng, ("int", "comma", "float", "share", "minus"), (3, 3, 4, 1, 1))
    if way == "share":
        return f"{between(rng, 0, 100):.1f}%"
    if way == "minus":
        return f"-{value / 100:.2f}"
    return {"int": f"{value:.0f}", "comma": f"{value:,.0f}", "float": f"{value / 50:.2f}"}[way]


def digits(rng: Rng, count: int) -> str:
    return "".join(str(digit) for digit in rng.integers(0, 10, count).tolist())


def date(rng: Rng) -> str:
    day, month, year = integer(rng, 1, 28), integer(rng, 1, 12), integer(rng, 1995, 2026)
    return pick(rng, (f"{day:02}/{month:02}/{year}", f"{year}-{month:02}-{day:02}", f"{day}.{month}.{year % 100:02}"))


def clock(rng: Rng) -> str:
    return f"{integer(rng, 0, 23):02}:{integer(rng, 0, 59):02}"


def code(rng: Rng) -> str:
    """Returns a code like that of an invoice or an article."""
    letters = "".join(chr(65 + integer(rng, 0, 25)) for _ in range(integer(rng, 0, 3)))
    return letters + pick(rng, ("", "-", "/", " ")) + digits(rng, integer(rng, 4, 11))
