"""What to say of a command line that cannot be read: what was probably meant. Pure."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches

BEGIN = """to begin:
  packlight serve                           then open http://127.0.0.1:8000
  packlight serve --model google/siglip2-base-patch16-naflex
  packlight embed photo.jpg
  packlight COMMAND --help                  lists the options of a command
"""
# Commands that take options alone, where a word is mostly a model.
_WITHOUT_WORDS = ("serve", "info")
_OF_ALL = ("-h", "--help", "--version")


def command_slip(arguments: Sequence[str], commands: Collection[str]) -> str | None:
    """What is wrong with the place where a command should stand; None if one stands there, or what needs none."""
    if not arguments:
        return f"name a command: {', '.join(commands)}"
    first = arguments[0]
    if first in commands or first in _OF_ALL:
        return None
    if first.startswith("-"):
        command = next((word for word in arguments if word in commands), "serve")
        return f"options stand behind the command, as in: packlight {command} {first} …"
    there_are = f"there are: {', '.join(commands)}"
    return f"there is no command {first!r}; {_meant(first, commands) or there_are}"


def word_slip(command: str, words: Sequence[str], options: Collection[str]) -> str:
    """What is wrong with the words of a command that are none of its options. words: at least one."""
    first = words[0]
    if first.startswith("-"):
        name = first.partition("=")[0]
        return f"there is no option {name}; {_meant(name, options) or f'packlight {command} --help lists them'}"
    takes = f"packlight {command} takes no {first!r} there"
    if command not in _WITHOUT_WORDS:
        return f"{takes}; words that are no options stand together"
    return f"{takes}; a model is named by an option: packlight {command} --model {first}"


def _meant(word: str, known: Collection[str]) -> str:
    near = get_close_matches(word, known, 1)
    return f"did you mean {near[0]}?" if near else ""
