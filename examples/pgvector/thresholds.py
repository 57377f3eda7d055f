"""From which similarity on two pictures may show the same person: what is known of a model, in words."""

from arcface_api.packs import registry


def known(model: str) -> list[tuple[float, float]]:
    """Pairs of false accept rate and similarity, the strictest last; empty for a model of which none is known."""
    packs = (pack for pack in registry().values() if pack.model == model)
    return [(each.far, each.similarity) for pack in packs for each in pack.thresholds]


def in_words(model: str, threshold: float | None, faces: int) -> str:
    """What reaching the threshold means in a search among so many faces."""
    if threshold is None:
        return (
            f"No threshold is known for {model}. Measure one with your own pairs (docs/thresholds.md), and name it:"
            " --threshold 0.3."
        )
    far = next((far for far, similarity in known(model) if similarity == threshold), None)
    if far is None:
        return f"A match: a similarity of at least {threshold}, the threshold that you named."
    return (
        f"A match: a similarity of at least {threshold}, which 1 in {1 / far:,.0f} pairs of different people reaches"
        f" ({model}). Among {faces:,} faces, each search meets about {far * faces:,.0f} strangers who reach it:"
        " docs/thresholds.md."
    )
