"""The section on overthinking: where deeper exits waste work and where they spoil an answer, with the pictures."""

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
from ramify.show.report.pictures import overlaid, png, side
from ramify.show.report.plot import Table, downloads, exit_color

_SHOWN = 6
"""Pictures shown of each kind."""

_COLUMNS = 6
"""Exits shown of each picture; of more, those spread evenly from the first to the last."""


def overthinking_section(facts: Facts) -> Markup:
    """Wasteful and destructive overthinking."""
    measured, answers = known(facts)
    if len(measured.analysis.macs) == 1:
        return html("missing", "The network has one exit, so it cannot think longer than it needs.")
    result = measured.analysis.overthinking
    shares = (
        ("wasteful", result.wasteful, "right early, still right at the end"),
        ("late", result.late, "right at the last exit only"),
        ("destructive", result.destructive, "right early, wrong at the end"),
        ("never", result.never, "never right"),
    )
    cases = {"destructive": result.destructive_cases, "late": result.late_cases, "wasteful": result.wasteful_cases}
    shown = {kind: shown_cases(of_kind) for kind, of_kind in cases.items()}
    maps, why = _maps(answers, [case.picture for of_kind in shown.values() for case in of_kind])
    next_map = iter(() if maps is None else maps.unbind(dim=1))
    cards = {kind: [_card(answers, case, next(next_map, None)) for case in of_kind] for kind, of_kind in shown.items()}
    rows = [
        (
            *(kind, picture_name(answers, case.picture), case.exit + 1, case.confidence),
            *(case.answer, case.last, case.label),
        )
        for kind, of_kind in cases.items()
        for case in of_kind
    ]
    columns = ("kind", "file", "exit", "confidence", "it answers", "the last exit answers", "label")
    files = (
        downloads("overthinking", Table(("kind", "share", "meaning"), shares)),
        downloads("overthinking-cases", Table(columns, rows)),
    )
    parts = [(share, meaning, f"var(--share-{i})") for i, (_, share, meaning) in enumerate(shares, start=1)]
    return html("run.overthinking", measured, parts, why, cards, files)


def _maps(answers: TestAnswers, pictures: Sequence[int]) -> tuple[Tensor | None, str]:
    """Grad-CAM ``[E, B, H, W]`` for the class that each exit answers; or None and the reason."""
    if not pictures:
        return None, "There are no such pictures to look at."
    device = answers.network.mean.device
    images = answers.test[torch.tensor(pictures)].images.to(device).float() / 255
    classes = answers.logits[:, torch.tensor(pictures)].argmax(dim=2).to(device)
    try:
        return heat_maps(answers.network, images, classes).detach().cpu(), ""
    except InputError as error:
        return None, f"Where each exit looked is not shown: {error.problems[0]}."


def shown_cases(cases: Sequence[Case]) -> tuple[Case, ...]:
    """At most :data:`_SHOWN` of ``cases``, in their order; the first of each class is preferred."""
    firsts = {case.label: case for case in reversed(cases)}.values()
    ranked = sorted(cases, key=lambda case: case not in firsts)
    return tuple(case for case in cases if case in ranked[:_SHOWN])


def shown_exits(exits: int) -> tuple[int, ...]:
    """At most :data:`_COLUMNS` of ``exits``, from 0, spread evenly with the first and the last.

    Example:
        >>> shown_exits(3), shown_exits(27)
        ((0, 1, 2), (0, 5, 10, 16, 21, 26))
    """
    if exits <= _COLUMNS:
        return tuple(range(exits))
    return tuple(round(i * (exits - 1) / (_COLUMNS - 1)) for i in range(_COLUMNS))


def _card(answers: TestAnswers, case: Case, relevance: Tensor | None) -> dict[str, object]:
    """A picture with the answers of its exits, for the macro ``cases``; ``relevance`` is ``[E, H, W]``."""
    (image,) = answers.test[case.picture : case.picture + 1].images
    confidences, labels = answers.logits[:, case.picture].double().softmax(dim=1).max(dim=1)
    steps = [
        {
            "exit": i + 1,
            "color": exit_color(i, len(confidences)),
            "answer": answers.card.classes[int(labels[i])],
            "sure": float(confidences[i]),
            "uri": None if relevance is None else png(overlaid(image, relevance[i])),
        }
        for i in shown_exits(len(confidences))
    ]
    size = side(image)
    scale = min(1.0, 64 / max(size))
    return {
        "uri": png(image),
        "size": size,
        "small": [round(pixels * scale) for pixels in size],
        "name": picture_name(answers, case.picture),
        "label": case.label,
        "steps": steps,
    }
