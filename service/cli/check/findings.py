"""What a check has found, and how it is printed. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.engine.canary.rule import Recorded, Vectors, cosine, distance, fault_in


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. ok: None for what is told and not judged."""

    name: str
    ok: bool | None
    words: str


@dataclass(slots=True)
class Report:
    """title: what was checked. findings: in the order in which they were made."""

    title: str
    findings: list[Finding] = field(default_factory=list)

    def add(self, name: str, ok: bool | None, words: str) -> None:
        self.findings.append(Finding(name, ok, words))

    @property
    def failed(self) -> list[str]:
        return [each.name for each in self.findings if each.ok is False]

    def __str__(self) -> str:
        width = max(len(each.name) for each in self.findings) + 2
        verdicts = {True: "ok", False: "WRONG", None: "-"}
        lines = [f"{verdicts[each.ok]:<7}{each.name:<{width}}{each.words}" for each in self.findings]
        failed = ", ".join(self.failed)
        return "\n".join([self.title, *lines, f"wrong: {failed}" if failed else "all is right"]) + "\n"


def add_canary(
    report: Report,
    vectors: Mapping[str, Vectors],
    recorded: Recorded | None,
    tokens: Mapping[str, int],
    why_unrecorded: str = "",
) -> None:
    """A line for each picture and text. tokens: of each. why_unrecorded: why nothing is known of them."""
    for name, each in vectors.items():
        if fault := fault_in({name: each}, recorded):
            report.add(name, False, fault)
        elif recorded is not None and name in recorded.vectors:
            own = recorded.vectors[name]
            near = (
                f"cosine {cosine(each, own):.6f}, distance {distance(each, own):.2g} of {recorded.allowed:.2g} allowed"
            )
            report.add(name, True, f"{tokens[name]:4} tokens, {near}")
        else:
            report.add(name, None, f"{tokens[name]:4} tokens, finite; not compared: {why_unrecorded}")
    if fault := fault_in(dict(vectors), None):
        report.add("together", False, fault)


def add_alone(report: Report, together: Mapping[str, Vectors], alone: Mapping[str, Vectors], allowed: float) -> None:
    """Whether a picture has the same vector in a pack of its own."""
    apart = max(distance(together[name], alone[name]) for name in alone)
    same = "the same bits" if apart == 0 else f"distance {apart:.2g} at most"
    report.add("packed or alone", apart <= allowed, same)


def usual(values: Sequence[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]
