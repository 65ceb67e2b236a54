"""What the command line says to who uses it for the first time."""

import pytest

from service.__main__ import main
from service.watching.exits import EXIT_CANNOT_START


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        status = main(list(arguments))
    except SystemExit as end:
        status = int(str(end.code))
    assert status == EXIT_CANNOT_START
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "name a command: serve, embed"),
        ("server", "there is no command 'server'; did you mean serve?"),
        ("photo.jpg", "there is no command 'photo.jpg'; there are: serve, embed"),
        ("--host 0.0.0.0", "options stand behind the command, as in: packlight serve --host …"),
        ("--model x embed", "options stand behind the command, as in: packlight embed --model …"),
    ],
)
def test_without_a_command_it_shows_how_to_begin(capsys: pytest.CaptureFixture[str], line: str, told: str) -> None:
    err = said(capsys, *line.split())
    assert err.startswith(f"packlight: {told}")
    assert "packlight serve --model google/siglip2-base-patch16-naflex" in err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("serve google/siglip", "a model is named by an option: packlight serve --model google/siglip"),
        ("serve --port 9000 ./folder", "a model is named by an option: packlight serve --model ./folder"),
        (
            "serve --device cuda",
            "there is no option --device; did you mean --devices?",
        ),
        ("serve --device=cuda", "there is no option --device; did you mean --devices?"),
        ("embed x.png --max-token 16", "there is no option --max-token; did you mean --max-tokens?"),
        (
            "embed a.png --max-tokens 16 b.png",
            "packlight embed takes no 'b.png' there; words that are no options stand",
        ),
        ("info --gpus all", "there is no option --gpus; packlight info --help lists them"),
    ],
)
def test_a_word_that_is_no_option_gets_what_was_meant(capsys: pytest.CaptureFixture[str], line: str, told: str) -> None:
    err = said(capsys, *line.split())
    assert told in err
    assert "usage" not in err


def test_help_shows_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "packlight embed photo.jpg" in capsys.readouterr().out
