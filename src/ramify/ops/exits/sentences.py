"""What is said of a policy, the same wherever it is said; without torch, as the runtime says it too."""


def asked_for(criterion: str, threshold: float) -> str:
    """What is said of a policy whose thresholds the user gave.

    Example:
        >>> asked_for("margin", 0.9)
        'policy: leave where the confidence (margin) reaches 0.9, as asked for; not calibrated'
    """
    named = "highest probability" if criterion == "max_probability" else f"confidence ({criterion.replace('_', ' ')})"
    return f"policy: leave where the {named} reaches {threshold:g}, as asked for; not calibrated"


def calibrated(criterion: str, combine: str, fallback: str) -> str:
    """What is said of a calibrated policy: its criterion, and what is not as usual.

    Example:
        >>> calibrated("margin", "mean", "last")
        'policy: calibrated (margin, answers averaged over the exits passed)'
    """
    return f"policy: calibrated ({', '.join((criterion.replace('_', ' '), *unusual(combine, fallback)))})"


def unusual(combine: str, fallback: str) -> tuple[str, ...]:
    """What a policy does otherwise than to answer with the exit where a picture leaves, in words."""
    ways = {"mean": "answers averaged over the exits passed", "weighted": "answers averaged by weight"}
    said = (ways[combine],) if combine in ways else ()
    return said if fallback == "last" else (*said, "the most confident exit where none is sure")
