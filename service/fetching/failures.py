"""What can become of a fetch, and the errors that say so. None repeats a URL or an address."""

from typing import Literal

from service.errors import FetchFailed, Invalid, Overloaded, ServiceError, TooLarge

# `refused`: no setting allows the address, or what a redirect points to. `abandoned`: the request ended first.
FetchOutcome = Literal["fetched", "refused", "failed", "timed_out", "too_large", "overloaded", "abandoned"]


class TimedOut(FetchFailed):
    """The host took too long."""


def failed(what: str) -> FetchFailed:
    return FetchFailed(f"the image could not be fetched: {what}", param="image")


def timed_out(what: str) -> TimedOut:
    return TimedOut(f"the image could not be fetched: {what}", param="image")


def no_public_address() -> Invalid:
    """One and the same for a host that there is not, and for one of the server's own network: a caller cannot use the
    server to find out which names and addresses that network has."""
    return Invalid(
        "the host of the URL has no public address, or not only public ones (url_allowlist can name private hosts)",
        param="image",
    )


def outcome_of(error: ServiceError) -> FetchOutcome:
    """What metrics count an error as."""
    match error:
        case TimedOut():
            return "timed_out"
        case FetchFailed():
            return "failed"
        case TooLarge():
            return "too_large"
        case Overloaded():
            return "overloaded"
    return "refused"
