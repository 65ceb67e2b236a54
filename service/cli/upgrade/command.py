"""The command: its options, the pictures that both servers embed, and the verdict."""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.fingerprint import difference, today
from model.images.image_files import folder_files
from service.cli.files import add_budget_options, not_read, say
from service.cli.neighbors import count, existing_folder
from service.names import SuffixCounts, one_line
from service.settings.names import SettingsError
from service.settings.settings import Settings

if TYPE_CHECKING:
    from service.cli.upgrade.agreement import Agreement
    from service.cli.upgrade.server import Refused, RemoteServer, Vector

    _Pair = tuple[Vector | Refused, Vector | Refused]

EXIT_MAKE_AGAIN = 1

_K = 10
_LEAST_COSINE = 0.99
_LEAST_RECALL = 0.95
_PICTURES = 500
# Pictures that each server has at once: enough for its packs, and no flood for one that serves others too.
_AT_ONCE = 8


def add_upgrade_options(parser: argparse.ArgumentParser) -> None:
    for name, what in (("old", "has filled the index"), ("new", "shall serve it from now on")):
        parser.add_argument(
            f"{name}_url", metavar=f"{name.upper()}_URL",
            help=f"the server that {what}; a key is the password of its URL, as in http://any:KEY@host:8000",
        )  # fmt: skip
    parser.add_argument("folder", type=existing_folder, metavar="FOLDER", help="pictures, folders below too")
    parser.add_argument(
        "--pictures", type=count, default=_PICTURES, metavar="N",
        help="how many of the folder's to compare, spread over it (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--top", type=count, default=_K, metavar="K", help="neighbours that are compared (default: %(default)s)"
    )
    parser.add_argument(
        "--least-cosine", type=share, default=_LEAST_COSINE, metavar="C",
        help="of a picture's two vectors, for an index that can be kept (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--least-recall", type=share, default=_LEAST_RECALL, metavar="R",
        help="of the neighbours in the old index, for the same (default: %(default)s)",
    )  # fmt: skip
    add_budget_options(parser)


def share(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number from 0 to 1")
    return number


def run_upgrade_check(settings: Settings, options: argparse.Namespace) -> int:
    """The exit status: 0 if the index can be kept, 1 if it is to be made again. Raises `SettingsError`."""
    from service.cli.upgrade.server import RemoteServer

    found = folder_files(options.folder)
    images = found.images
    sys.stderr.writelines(f"{one_line(path)}: {reason}\n" for path, reason in found.unreadable)
    sys.stderr.writelines(f"{line}\n" for line in not_read(SuffixCounts(found.others), "compared"))
    chosen = images[:: -(-len(images) // options.pictures)] if images else []
    if len(chosen) < 2:
        raise SettingsError(f"{one_line(options.folder)} holds {len(chosen)} pictures; neighbours take two or more")
    given = {name: getattr(options, name) for name in ("strategy", "max_tokens", "max_pixels", "min_pixels")}
    parameters = {name: str(value) for name, value in given.items() if value is not None}
    with (
        closing(RemoteServer(options.old_url, parameters)) as old,
        closing(RemoteServer(options.new_url, parameters)) as new,
    ):
        return _compare(old, new, chosen, options)


def _compare(old: "RemoteServer", new: "RemoteServer", files: Sequence[Path], options: argparse.Namespace) -> int:
    from service.cli.upgrade.server import Vector

    results = _results(old, new, files)
    both = [(a, b) for a, b in results if isinstance(a, Vector) and isinstance(b, Vector)]
    one_alone = []
    for file, pair in zip(files, results, strict=True):
        refusals = [each for each in pair if not isinstance(each, Vector)]
        if len(refusals) == 1:
            one_alone.append((file, refusals[0]))
    before = _only(old, {of_old.fingerprint for of_old, _ in both})
    now = _only(new, {of_new.fingerprint for _, of_new in both})
    for name, server, fingerprint in (("old", old, before), ("new", new, now)):
        say(f"{name}  {server.url}  {server.summary}  {fingerprint}\n")
    say(_words(before, now, new.info))
    say(f"{len(both)} pictures embedded by both, {len(results) - len(both) - len(one_alone)} by neither\n")
    for file, refused in one_alone:
        say(f"embedded by one alone: {one_line(file)}: {refused.reason}\n")
    if len(both) < 2:
        raise SettingsError("too few pictures have a vector of both servers: there is nothing to compare")
    reasons = _reasons(both, options)
    say(f"make the index again: {'; '.join(reasons)}\n" if reasons else "the index can be kept\n")
    return EXIT_MAKE_AGAIN if reasons else 0


def _results(old: "RemoteServer", new: "RemoteServer", files: Sequence[Path]) -> "list[_Pair]":
    """What both servers make of each file."""
    from service.cli.upgrade.server import Refused

    def embed(file: Path) -> "_Pair":
        try:
            data = file.read_bytes()
        except OSError as error:
            refused = Refused(error.strerror or str(error))
            return refused, refused
        return old.embed(data), new.embed(data)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        try:
            return list(threads.map(embed, files))
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


def _only(server: "RemoteServer", fingerprints: set[str]) -> str:
    """Raises `SettingsError` for several, since no verdict would hold."""
    if len(fingerprints) > 1:
        raise SettingsError(
            f"{server.url} answers with the fingerprints {' and '.join(sorted(fingerprints))}: ask one server, and not "
            "a balancer between two versions"
        )
    return next(iter(fingerprints), "")


def _words(before: str, now: str, info: dict[str, Any]) -> str:
    """What the fingerprints say. A server of an earlier version names its own in the old form."""
    if before == now:
        return "the fingerprints are equal\n"
    about = info.get("fingerprint", {})
    known = today(before, {about.get("old_form") or "": now})
    return "the fingerprints name the same vectors\n" if known == now else f"{difference(known, now)}\n"


def _reasons(both: Sequence[tuple["Vector", "Vector"]], options: argparse.Namespace) -> list[str]:
    """Prints how far the vectors agree, and returns why the index cannot be kept."""
    import numpy as np

    from service.cli.upgrade.agreement import Agreement

    old, new = (np.stack([pair[side].embedding for pair in both]) for side in (0, 1))
    if old.shape != new.shape:
        return [f"vectors have {old.shape[1]} numbers on the old server and {new.shape[1]} on the new one"]
    found = Agreement.of(old, new, k=options.top)
    say(_table(found))
    reasons = []
    if found.cosines[0] < options.least_cosine:
        reasons.append(
            f"a picture's two vectors have a cosine of {found.cosines[0]:.6f}, under {options.least_cosine:g}"
        )
    if found.recall < options.least_recall:
        reasons.append(f"the new vectors find {found.recall:.1%} of the neighbours, under {options.least_recall:.1%}")
    return reasons


def _table(found: "Agreement") -> str:
    least, first, median = found.cosines
    return (
        f"cosine of a picture's two vectors    least {least:.5f}, 1% {first:.5f}, median {median:.5f}\n"
        f"recall@{found.k:<4} in the old index           {found.recall:.1%}; its own old vector is nearest for "
        f"{found.same_nearest:.1%}\n"
        f"shift of a score of two pictures     mean {found.shift_mean:.5f}, largest {found.shift_most:.5f}\n"
    )
