"""Overthinking: where deeper exits waste work and where they spoil an answer, with the pictures themselves."""

from collections.abc import Sequence

import torch
from markupsafe import Markup
from torch import Tensor

from ramify.errors import InputError
from ramify.ops.exits.analysis import Case
from ramify.run.readback import TestAnswers
from ramify.show.report.classes import picture_name
from ramify.show.report.facts import Facts, known
from ramify.show.report.gradcam import heat_maps
from ramify.show.report.page import html
from ramify.show.report.pictures import heated, png, side
from ramify.show.report.plot import Table, downloads, exit_colour
from ramify.show.words import percent, short

_SHOWN = 6
"""Pictures shown of each kind."""

_COLUMNS = 6
"""Exits shown of each picture; of more, those spread evenly from the first to the last."""

LEGEND = (
    "Below each picture, what every exit answers, how sure it is, and (Grad-CAM) where it looked for the class that "
    "it answers: the redder, the more it counted."
)

KINDS = (
    (
        "destructive",
        "Destructive: right early, wrong at the last exit",
        "The surest early answers come first.",
        "There is none: whatever an early exit gets right, the last exit gets right, too.",
    ),
    (
        "late",
        "Worth the work: wrong early, right only at the last exit",
        "The first exit's surest mistakes come first.",
        "There is none: what the last exit gets right, an earlier one gets right, too.",
    ),
    (
        "wasteful",
        "Wasteful: right early, and right at the last exit",
        "The surest of the earliest come first, one of each class.",
        "There is none: no early exit is right about a picture that the last exit gets right.",
    ),
)
"""Each kind of pictures: its name, its heading, what it shows, and what is said where there are none."""


def thinking(facts: Facts) -> tuple[str, Markup]:
    """Wasteful and destructive overthinking."""
    measured, answers = known(facts), facts.answers
    assert answers is not None
    macs, found = measured.analysis.macs, measured.analysis.overthinking
    if len(macs) == 1:
        return "", html("missing", "The network has one exit, so it cannot think longer than it needs.")
    lead = (
        f"{percent(found.wasteful)} of the {measured.part} are right early and stay right: what is computed after is "
        f"wasted, {short(found.wasted_macs)} MACs a picture on average, {percent(found.wasted_macs / macs[-1])} of the "
        f"last exit's work. {percent(found.destructive)} are right early and wrong at the last exit: thinking on "
        "destroys the answer."
    )
    shares = (
        ("wasteful", found.wasteful, "right early, still right at the end"),
        ("late", found.late, "right at the last exit only"),
        ("destructive", found.destructive, "right early, wrong at the end"),
        ("never", found.never, "never right"),
    )
    parts = [(share, meaning, f"var(--share-{i})") for i, (_, share, meaning) in enumerate(shares, start=1)]
    body = html("shares", parts) + downloads("overthinking", Table(("kind", "share", "meaning"), shares))
    cases = {name: getattr(found, f"{name}_cases") for name, *_ in KINDS}
    shown = {name: shown_cases(each) for name, each in cases.items()}
    maps, why = _heat(answers, [case.picture for each in shown.values() for case in each])
    body += html("missing", why) if maps is None else html("prose", LEGEND)
    each_map = iter(() if maps is None else maps.unbind(dim=1))
    for name, title, order, none in KINDS:
        cards = [_card(answers, case, next(each_map, None)) for case in shown[name]]
        body += html("heading", title)
        body += html("prose", order) + html("cases", cards) if cards else html("missing", none)
    rows = [
        (
            *(name, picture_name(answers, case.picture), case.exit + 1, case.confidence),
            *(case.answer, case.last, case.label),
        )
        for name, each in cases.items()
        for case in each
    ]
    columns = ("kind", "file", "exit", "confidence", "it answers", "the last exit answers", "label")
    return lead, body + downloads("overthinking-cases", Table(columns, rows))


def _heat(answers: TestAnswers, chosen: Sequence[int]) -> tuple[Tensor | None, str]:
    """Where each exit looked, ``[E, B, H, W]``, for the class that the exit answers; or why there is no such map."""
    if not chosen:
        return None, "There are no such pictures to look at."
    device = answers.network.mean.device
    images = answers.test[torch.tensor(chosen)].images.to(device).float() / 255
    classes = answers.logits[:, torch.tensor(chosen)].argmax(dim=2).to(device)
    try:
        return heat_maps(answers.network, images, classes).detach().cpu(), ""
    except InputError as error:
        return None, f"Where each exit looked is not shown: {error.problems[0]}."


def shown_cases(cases: Sequence[Case], most: int = _SHOWN) -> tuple[Case, ...]:
    """At most ``most`` of ``cases``, in their order: first the first of each class, as one class says little."""
    firsts = {case.label: case for case in reversed(cases)}.values()
    ranked = sorted(cases, key=lambda case: case not in firsts)
    return tuple(case for case in cases if case in ranked[:most])


def shown_exits(exits: int) -> tuple[int, ...]:
    """At most :data:`_COLUMNS` of ``exits``, from 0, spread evenly with the first and the last.

    Example:
        >>> shown_exits(3), shown_exits(27)
        ((0, 1, 2), (0, 5, 10, 16, 21, 26))
    """
    if exits <= _COLUMNS:
        return tuple(range(exits))
    return tuple(round(i * (exits - 1) / (_COLUMNS - 1)) for i in range(_COLUMNS))


def _card(answers: TestAnswers, case: Case, looked: Tensor | None) -> dict[str, object]:
    """What the macro ``cases`` shows of a picture."""
    (image,) = answers.test[case.picture : case.picture + 1].images
    sure, said = answers.logits[:, case.picture].double().softmax(dim=1).max(dim=1)
    steps = [
        {
            "exit": i + 1,
            "colour": exit_colour(i, len(sure)),
            "answer": answers.card.classes[int(said[i])],
            "sure": float(sure[i]),
            "uri": None if looked is None else png(heated(image, looked[i])),
        }
        for i in shown_exits(len(sure))
    ]
    size = side(image)
    scale = min(1.0, 64 / max(size))
    return {
        "uri": png(image),
        "size": size,
        "small": [round(each * scale) for each in size],
        "name": picture_name(answers, case.picture),
        "label": case.label,
        "steps": steps,
    }
