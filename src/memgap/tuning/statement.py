"""What a race has found, in a sentence that says how sure it is."""

from collections.abc import Mapping, Sequence

from memgap.tuning.race import RaceRule, Standing, Verdict

NAMED = 4
"""So many names are listed, of more the number."""


def statement(verdict: Verdict, labels: Mapping[str, str], objective: str, more: bool, rule: RaceRule) -> str:
    """Return the sentence of a finished race. `labels`: what each arm is called; `more`: whether more is better."""
    if verdict.winner is None:
        return "Nothing was measured: every configuration failed."
    best = labels[verdict.winner]
    blocks = max((one.blocks for one in verdict.standings.values()), default=0)
    if verdict.reference is None:
        text = f"{best} is the best by the mean of {_blocks(blocks)}; the reference failed, so there is no comparison."
        return text + _tied(verdict.tied, labels)
    alone = all(one.state != "running" for one in verdict.standings.values() if one.name != verdict.reference)
    if len(verdict.standings) == 1:
        return f"{best} is the only configuration of this race."
    if blocks < rule.least_blocks and not alone:
        return (
            f"Not decided: {_blocks(blocks)} measured, {rule.least_blocks} are needed; {best} stays "
            f"({verdict.finished})."
        )
    if verdict.winner == verdict.reference:
        return _no_difference(verdict, labels, rule, best, blocks)
    found = verdict.standings[verdict.winner]
    side = "better than" if more else "less than"
    gain = _signed(found.gain_fraction or 0.0)
    text = (
        f"{best} is {side} {labels[verdict.reference]} in {objective}: {gain} "
        f"({_interval(found, rule)}, {_blocks(blocks)})."
    )
    return text + _tied(verdict.tied, labels)


def _no_difference(verdict: Verdict, labels: Mapping[str, str], rule: RaceRule, best: str, blocks: int) -> str:
    running = [one for one in verdict.standings.values() if one.state == "running" and one.name != verdict.reference]
    beaten = sum(one.state in ("beaten", "screened") for one in verdict.standings.values())
    equal = sum(one.state == "equal" for one in verdict.standings.values())
    failed = sum(one.state == "failed" for one in verdict.standings.values())
    text = f"No configuration is shown to be better than {best} ({_blocks(blocks)})"
    parts = [f"{beaten} beaten"] if beaten else []
    parts += [f"{equal} can gain less than {rule.least_gain_fraction:.1%}"] if equal else []
    parts += [f"{failed} failed"] if failed else []
    highs = [(one.gain_high_fraction, one) for one in running if one.gain_high_fraction is not None]
    if highs:
        high, one = max(highs, key=lambda pair: pair[0])
        parts.append(
            f"{len(running)} not told apart from it, of which {labels[one.name]} could at most gain {_signed(high)} "
            f"({_confidence(rule)})"
        )
    return text + (f": {', '.join(parts)}." if parts else ".")


def _interval(found: Standing, rule: RaceRule) -> str:
    if found.gain_low_fraction is None or found.gain_high_fraction is None:
        return "no interval"
    return f"{_signed(found.gain_low_fraction)} to {_signed(found.gain_high_fraction)} at {_confidence(rule)}"


def _confidence(rule: RaceRule) -> str:
    return f"{100 * (1 - rule.false_winner_rate):.4g} % over all comparisons and looks"


def _tied(tied: Sequence[str], labels: Mapping[str, str]) -> str:
    if not tied:
        return ""
    named = ", ".join(labels[name] for name in tied[:NAMED])
    rest = f" and {len(tied) - NAMED} more" if len(tied) > NAMED else ""
    return f" Not told apart from it: {named}{rest}."


def _signed(fraction: float) -> str:
    return f"{fraction:+.1%}"


def _blocks(number: int) -> str:
    return f"{number} block" + "s" * (number != 1)
