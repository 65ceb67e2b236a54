"""Whether the vectors that an earlier job has left are those that this job would make.

A meaning is the JSON of `Recipe.meaning`. One that differs may be an accident, such as another machine or an option
left out, and days of work must not be lost to it.
"""

import json
from collections.abc import Mapping

from model.fingerprint import difference, identity_of, today, variant_of

# Of `Recipe.meaning`'s budget.
_BUDGET = ("max_tokens", "max_pixels", "min_pixels")


class OtherVectors(Exception):
    """The earlier vectors have another fingerprint or other options. The message names both and says what to do."""


def is_same(kept: str, wanted: str, old_forms: Mapping[str, str]) -> bool:
    """False if `kept` is the meaning of no job. old_forms: as in `model.fingerprint`. Raises `OtherVectors`."""
    if kept == wanted:
        return True
    before, now = _parts(kept), _parts(wanted)
    if "fingerprint" not in before or "fingerprint" not in now:
        return False
    before["fingerprint"] = today(str(before["fingerprint"]), old_forms)
    if before["fingerprint"] != now["fingerprint"]:
        raise OtherVectors(_refusal(str(before["fingerprint"]), str(now["fingerprint"])))
    if before != now:
        raise OtherVectors(f"holds vectors of {_options(before, now)}. Give the options of then")
    return True


def _options(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """`max_tokens=64, and this job has 256; …`"""
    then, here = _flat(before), _flat(now)
    differ = [name for name in then | here if then.get(name) != here.get(name)]
    # The pixels follow from the tokens.
    if "max_tokens" in differ and "max_pixels" in differ:
        differ.remove("max_pixels")
    return "; ".join(f"{name}={then.get(name)}, and this job has {here.get(name)}" for name in differ)


def _flat(parts: Mapping[str, object]) -> dict[str, object]:
    budget = parts.get("budget")
    named = dict(zip(_BUDGET, budget, strict=False)) if isinstance(budget, list) else {}
    return {**parts, **named, "budget": None}


def _refusal(before: str, now: str) -> str:
    both = f"holds vectors of the fingerprint {before}, and this job's have {now}: {difference(before, now)}"
    if identity_of(before) != identity_of(now):
        return f"{both}. Give the model and the settings of then"
    dtype, _, fast = variant_of(before).partition("-")
    return f"{both}. Go on with --dtype {dtype} --decode {'fast' if fast else 'exact'}"


def _parts(meaning: str) -> dict[str, object]:
    try:
        parts = json.loads(meaning)
    except ValueError:
        return {}
    return parts if isinstance(parts, dict) else {}
