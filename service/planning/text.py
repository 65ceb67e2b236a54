"""A plan as a table for people."""

from service.planning.answer import GroupPlan, Option, WorkloadPlan

_HEAD = f"    {'':2}{'geometry':<16} {'strategy':<9} {'tokens':>7} {'segments':>8} {'ms':>8}  "


def plan_text(plan: WorkloadPlan) -> str:
    lines = [f"{plan.model}: {plan.budget.message}", ""]
    for number, group in enumerate(plan.groups):
        lines += [*_group(number, group), ""]
    return "\n".join([*lines, *_totals(plan)]) + "\n"


def _group(number: int, plan: GroupPlan) -> list[str]:
    group, take = plan.group, plan.take
    images = "image" if group.count == 1 else "images"
    lines = [f"{number}. {group.count:,} {images} of {group.height}×{group.width}, {group.task.replace('_', ' ')}"]
    if take:
        given = " ".join(f"{name}={value}" for name, value in take.parameters.items())
        lines.append(f"   take {given}: {take.tokens:,} tokens an image, {take.tokens * group.count:,} together")
    else:
        lines.append("   cannot be taken")
    lines.append(f"   {plan.why}")
    if plan.crosses:
        lines.append(f"   {plan.crosses} (SigLIP 2, arXiv 2502.14786, Table 7)")
    return [*lines, _HEAD, *(_option(option, plan) for option in plan.options)]


def _option(option: Option, plan: GroupPlan) -> str:
    taken = option.loaded and plan.take and plan.take.strategy == option.strategy
    tokens = f"{option.tokens:,}" if option.tokens else "-"
    ms = f"{option.ms:.2f}" if option.ms is not None else "-"
    return (
        f"    {'→ ' if taken else '  '}{option.geometry[-16:]:<16} {option.strategy:<9} {tokens:>7} "
        f"{option.segments or '-':>8} {ms:>8}  {option.remark}"
    )


def _totals(plan: WorkloadPlan) -> list[str]:
    totals = plan.totals
    ms = f", about {totals.ms:,.0f} ms of one device" if totals.ms is not None else ""
    lines = [f"{totals.images:,} images: {totals.tokens:,} tokens in {totals.packs:,} full packs{ms}"]
    for name, tokens in (
        ("each padded to its cap", totals.pad_to_cap),
        ("each padded to the longest", totals.pad_to_longest),
        ("each as one square", totals.fixed_square),
    ):
        if tokens is not None and totals.tokens:
            lines.append(f"    {name:<28} {tokens:>14,} tokens  {tokens / totals.tokens:>6.2f} ×")
    needs = {option.geometry: option.needs for group in plan.groups for option in group.options if option.needs}
    lines.append("    for milliseconds of the others, serve " + ", ".join(f"{needs[name]} ({name})" for name in needs))
    if plan.cost is None:
        lines.append("    for milliseconds, ask a server that has run packs (--url)")
    else:
        error = plan.cost.error
        tested = f"median error {error:.0%} over recent packs" if error is not None else "not yet tested"
        lines.append(f"    milliseconds: a fit to {plan.cost.packs:,} packs, {tested}")
    return lines
