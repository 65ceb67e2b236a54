"""The command `packlight classify`: which of some labels fits each picture best."""

import argparse
from pathlib import Path

from service.cli.files import EXIT_SOME_FAILED, FileRun, add_budget_options, opened_pipeline, say
from service.names import one_line
from service.requests.labels import label_vectors, logits_of, probabilities_of, prompts_of
from service.settings.names import SettingsError
from service.settings.settings import Settings


def add_classify_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--labels", required=True, type=_labels, metavar="A,B,…", help="what the pictures may show")
    parser.add_argument(
        "--template", action="append", type=_template, metavar="TEXT",
        help="a text in which {} stands for the label; may be given several times (default: the label alone)",
    )  # fmt: skip
    add_budget_options(parser)


def _labels(value: str) -> list[str]:
    labels = [label.strip() for label in value.split(",")]
    if not all(labels):
        raise argparse.ArgumentTypeError(f"{value!r}: labels are separated by commas, and none is empty")
    return list(dict.fromkeys(labels))


def _template(value: str) -> str:
    if "{}" not in value:
        raise argparse.ArgumentTypeError(f"{value!r} has no {{}} for the label")
    return value


def run_classify(settings: Settings, options: argparse.Namespace) -> int:
    """Prints a line a file as it is done, the likeliest label first. The exit status: 0, or 1 if a file failed."""
    from service.cli.texts import TextEmbedder, text_of
    from service.loading import load_runner

    runner, model = load_runner(settings)
    text = text_of(model)
    if text.logit_scale is None:
        raise SettingsError(f"{model.name} was not trained to classify: it has no logits")
    prompts = prompts_of(options.labels, options.template or ["{}"])
    wanted = list(dict.fromkeys(prompt for own in prompts for prompt in own))
    found = TextEmbedder.of(settings, runner, model).embed(wanted)
    labels = label_vectors(prompts, {each.text: each.embedding for each in found})
    with opened_pipeline(settings, options, runner, model) as pipeline:
        run = FileRun(pipeline)
        for result in run.results(options.files):
            (probabilities,) = probabilities_of(logits_of(result.embedding[None], labels, text), text)
            ranked = sorted(zip(options.labels, probabilities, strict=True), key=lambda pair: -pair[1])
            scores = "  ".join(f"{label} {probability:.1%}" for label, probability in ranked)
            say(f"{one_line(result.path)}: {scores}\n")
    return EXIT_SOME_FAILED if run.failed else 0
