"""Numbers with their nouns, for notes and reports."""


def counted(count: float, noun: str) -> str:
    """`1 pack`, `2 packs`, `1,000 packs`. The noun takes an s in the plural."""
    return f"{count:,.0f} {noun}{'' if count == 1 else 's'}"
