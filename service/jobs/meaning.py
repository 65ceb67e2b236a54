"""Whether the vectors that an earlier job has left are those that this job would make.

A meaning is the JSON of `Recipe.meaning`. A budget that differs is a wish for other vectors. A fingerprint that differs
may be an accident, such as another machine or a model's name left out, and hours of work must not be lost to it.
"""

import json
from collections.abc import Mapping

from model.fingerprint import difference, identity_of, today, variant_of


class OtherFingerprint(Exception):
    """The earlier vectors have another fingerprint. The message names both and says what to do."""


def is_same(kept: str, wanted: str, old_forms: Mapping[str, str]) -> bool:
    """old_forms: as in `model.fingerprint`. Raises `OtherFingerprint`."""
    if kept == wanted:
        return True
    before, now = _parts(kept), _parts(wanted)
    if "fingerprint" not in before or "fingerprint" not in now:
        return False
    before["fingerprint"] = today(str(before["fingerprint"]), old_forms)
    if before["fingerprint"] != now["fingerprint"]:
        raise OtherFingerprint(_refusal(str(before["fingerprint"]), str(now["fingerprint"])))
    return before == now


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
