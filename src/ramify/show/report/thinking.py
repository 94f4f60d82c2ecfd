"""Where thinking on wastes and where it destroys, with the pictures themselves and what each exit looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import torch
from torch import Tensor

from ramify.errors import InputError
from ramify.ops.exits.analysis import Case, Overthinking
from ramify.run.readback import Answers
from ramify.show.report.classes import picture_name
from ramify.show.report.facts import Facts
from ramify.show.report.gradcam import heat_maps
from ramify.show.report.page import Section
from ramify.show.report.parts import missing, prose
from ramify.show.report.pictures import heated, png, side
from ramify.show.report.plot import Table, downloads_html, exit_colour
from ramify.show.words import percent, short

SHOWN = 6
"""Pictures shown of each kind."""

COLUMNS = 6
"""Exits shown of each picture; of more, those spread evenly from the first to the last."""


@dataclass(frozen=True)
class Kind:
    """One kind of pictures: its heading, what it means, and where there are none."""

    title: str
    told: str
    none: str
    cases: tuple[Case, ...]


def thinking_section(facts: Facts) -> Section:
    """Wasteful and destructive overthinking."""
    title = "Overthinking"
    if facts.measured is None or facts.answers is None:
        return Section("overthinking", title, "", missing(facts.unmeasured))
    analysis = facts.measured.analysis
    if len(analysis.macs) == 1:
        why = "The network has one exit, so it cannot think longer than it needs."
        return Section("overthinking", title, "", missing(why))
    found = analysis.overthinking
    lead = (
        f"{percent(found.wasteful)} of the {facts.measured.part} are right early and stay right: what is computed "
        f"after is wasted, {short(found.wasted_macs)} MACs a picture on average, "
        f"{percent(found.wasted_macs / analysis.macs[-1])} of the last exit's work. {percent(found.destructive)} are "
        f"right early and wrong at the last exit: thinking on destroys the answer."
    )
    kinds = _kinds(found)
    chosen = [case.picture for kind in kinds for case in shown_cases(kind.cases)]
    heat, why = _heat(facts.answers, chosen)
    body = _shares(found) + (prose(LEGEND) if heat is not None else missing(why))
    place = 0
    for kind in kinds:
        cases = shown_cases(kind.cases)
        body += f"<h3>{escape(kind.title)}</h3>" + (prose(kind.told) if cases else missing(kind.none))
        cards = [
            _card(facts.answers, case, None if heat is None else heat[:, place + i]) for i, case in enumerate(cases)
        ]
        place += len(cases)
        if cards:
            body += f'<div class="cases">{"".join(cards)}</div>'
    return Section("overthinking", title, lead, body + _all_cases(facts.answers, kinds))


LEGEND = (
    "Below each picture, what every exit answers, how sure it is, and (Grad-CAM) where it looked for the class that "
    "it answers: the redder, the more it counted."
)


def _kinds(found: Overthinking) -> tuple[Kind, ...]:
    return (
        Kind(
            "Destructive: right early, wrong at the last exit",
            "The surest early answers come first.",
            "There is none: whatever an early exit gets right, the last exit gets right, too.",
            found.destructive_cases,
        ),
        Kind(
            "Worth the work: wrong early, right only at the last exit",
            "The first exit's surest mistakes come first.",
            "There is none: what the last exit gets right, an earlier one gets right, too.",
            found.late_cases,
        ),
        Kind(
            "Wasteful: right early, and right at the last exit",
            "The surest of the earliest come first, one of each class.",
            "There is none: no early exit is right about a picture that the last exit gets right.",
            found.wasteful_cases,
        ),
    )


def _heat(answers: Answers, chosen: Sequence[int]) -> tuple[Tensor | None, str]:
    """Where each exit looked, ``[E, B, H, W]``, for the class that the exit answers; or why there is no such map."""
    if not chosen:
        return None, "There are no such pictures to look at."
    device = answers.network.mean.device
    images = answers.test[torch.tensor(chosen)].images.to(device).float() / 255
    classes = answers.logits[:, torch.tensor(chosen)].argmax(dim=2).to(device)
    try:
        found = heat_maps(answers.network, images, classes)
    except InputError as error:
        return None, f"Where each exit looked is not shown: {error.problems[0]}."
    return found.detach().cpu(), ""


def _shares(found: Overthinking) -> str:
    """The four shares as one bar, which sums to all pictures."""
    parts = (
        ("wasteful", found.wasteful, "right early, still right at the end", "var(--share-1)"),
        ("late", found.late, "right at the last exit only", "var(--share-2)"),
        ("destructive", found.destructive, "right early, wrong at the end", "var(--share-3)"),
        ("never", found.never, "never right", "var(--share-4)"),
    )
    bar = "".join(
        f'<span style="flex:{share:.6f};background:{colour}" title="{percent(share)} {told}"></span>'
        for _, share, told, colour in parts
        if share > 0
    )
    key = "".join(
        f'<li><span class="dot" style="background:{colour}"></span><b>{percent(share)}</b> {told}</li>'
        for _, share, told, colour in parts
    )
    table = Table(("kind", "share", "meaning"), tuple((name, share, told) for name, share, told, _ in parts))
    return (
        f'<div class="shares" aria-hidden="true">{bar}</div><ul class="key">{key}</ul>'
        f"{downloads_html('overthinking', table)}"
    )


def shown_cases(cases: Sequence[Case], most: int = SHOWN) -> tuple[Case, ...]:
    """At most ``most`` of ``cases``, in their order: first the first of each class, as one class says little."""
    firsts = {case.label: case for case in reversed(cases)}.values()
    rest = [case for case in cases if case not in firsts]
    chosen = [case for case in cases if case in firsts][:most]
    chosen += rest[: most - len(chosen)]
    return tuple(case for case in cases if case in chosen)


def shown_exits(exits: int) -> tuple[int, ...]:
    """At most :data:`COLUMNS` of ``exits``, from 0, spread evenly with the first and the last.

    Example:
        >>> shown_exits(3), shown_exits(27)
        ((0, 1, 2), (0, 5, 10, 16, 21, 26))
    """
    if exits <= COLUMNS:
        return tuple(range(exits))
    return tuple(round(i * (exits - 1) / (COLUMNS - 1)) for i in range(COLUMNS))


def _card(answers: Answers, case: Case, heat: Tensor | None) -> str:
    (image,) = answers.test[case.picture : case.picture + 1].images
    names, name = answers.card.classes, picture_name(answers, case.picture)
    sure, said = answers.logits[:, case.picture].double().softmax(dim=1).max(dim=1)
    exits = len(sure)
    width, height = side(image)
    size = f'width="{width}" height="{height}"'
    steps = ""
    for i in shown_exits(exits):
        answer = names[int(said[i])]
        right = answer == case.label
        picture = ""
        if heat is not None:
            alt = f"where exit {i + 1} looked"
            picture = f'<img src="{png(heated(image, heat[i]))}" {_small(width, height)} alt="{alt}">'
        steps += (
            f'<li class="{"right" if right else "wrong"}">{picture}<span class="step">'
            f'<span class="dot" style="background:{exit_colour(i, exits)}"></span>exit {i + 1}</span>'
            f'<span class="said"><span aria-label="{"right" if right else "wrong"}">{"✓" if right else "✗"}</span> '
            f"{escape(answer)}</span><span class='sure'>{percent(float(sure[i]))}</span></li>"
        )
    return (
        f'<article class="case"><div class="what"><img src="{png(image)}" {size} '
        f'alt="{escape(name)}, {escape(case.label)}"><p><b>{escape(case.label)}</b><br>'
        f"<small>{escape(name)}</small></p></div><ol>{steps}</ol></article>"
    )


def _small(width: int, height: int) -> str:
    longest = max(width, height)
    scale = min(1.0, 64 / longest)
    return f'width="{round(width * scale)}" height="{round(height * scale)}"'


def _all_cases(answers: Answers, kinds: Sequence[Kind]) -> str:
    names = ("destructive", "late", "wasteful")
    rows = tuple(
        (name, picture_name(answers, case.picture), case.exit + 1, case.confidence, case.answer, case.last, case.label)
        for name, kind in zip(names, kinds, strict=True)
        for case in kind.cases
    )
    columns = ("kind", "file", "exit", "confidence", "it answers", "the last exit answers", "label")
    return downloads_html("overthinking-cases", Table(columns, rows))
