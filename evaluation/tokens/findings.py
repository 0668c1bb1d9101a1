"""What the tables say, in sentences with their intervals."""

from __future__ import annotations

from typing import Any


def findings(result: dict[str, Any]) -> list[str]:
    """One sentence for each question: do rarer and harder tokens go to wider groups, and where are numbers?

    Args:
        result: of `analyse`.
    """
    overall = result["difficulty"][-1]
    sentences = []
    for kind, name in (("Rarer", "rarity_correlation"), ("Harder", "loss_correlation")):
        sentences.append(_direction(kind, overall[name], result))
    numbers = next((part for part in result["parts"] if part["part"] == "number"), None)
    if numbers is not None and len(set(result["widths"])) > 1:
        shares = ", ".join(
            f"{share:.0%} in width {group['width']} ({group['share']:.0%})"
            for share, group in zip(numbers["shares"], overall["groups"], strict=True)
        )
        sentences.append(f"Rows of numbers (and of all tokens): {shares}.")
    return sentences


def _direction(kind: str, correlation: dict[str, float] | None, result: dict[str, Any]) -> str:
    if len(set(result["widths"])) == 1:
        return f"{kind} tokens cannot go to wider or narrower groups: all experts have one width."
    if correlation is None:
        return f"{kind} tokens: no answer, as the text is too short or too uniform for an interval."
    low, high = correlation["low"], correlation["high"]
    interval = f"rho = {correlation['rho']:.2f} ({result['level']:.0%} {low:.2f} to {high:.2f})"
    if low <= 0 <= high:
        return f"{kind} tokens go to wider and narrower groups alike, no clear direction: {interval}."
    return f"{kind} tokens go to {'wider' if low > 0 else 'narrower'} groups: {interval}."
