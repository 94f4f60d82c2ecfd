"""Sentences that describe a policy; without torch, as the runtime prints them too."""


def asked_for(criterion: str, threshold: float) -> str:
    """The description of a policy whose threshold the user gave.

    Example:
        >>> asked_for("margin", 0.9)
        'policy: leave where the confidence (margin) reaches 0.9, as asked for; not calibrated'
    """
    named = "highest probability" if criterion == "max_probability" else f"confidence ({criterion.replace('_', ' ')})"
    return f"policy: leave where the {named} reaches {threshold:g}, as asked for; not calibrated"


def calibrated(criterion: str, combine: str, fallback: str) -> str:
    """The description of a calibrated policy: its criterion, and what is not the default.

    Example:
        >>> calibrated("margin", "mean", "last")
        'policy: calibrated (margin, answers averaged over the exits passed)'
    """
    return f"policy: calibrated ({', '.join((criterion.replace('_', ' '), *unusual(combine, fallback)))})"


def unusual(combine: str, fallback: str) -> tuple[str, ...]:
    """In words, how a policy answers otherwise than with the exit where a picture leaves."""
    ways = {"mean": "answers averaged over the exits passed", "weighted": "answers averaged by weight"}
    words = (ways[combine],) if combine in ways else ()
    return words if fallback == "last" else (*words, "the most confident exit where none is sure")
