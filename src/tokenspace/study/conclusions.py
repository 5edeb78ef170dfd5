"""What a study allows to conclude, and what not, in plain sentences."""

from collections.abc import Sequence

from tokenspace.study.student import Mean, mean_of
from tokenspace.study.summary import CONFIDENCE, Measure, Summary

_SMALL = 0.05  # nats; a smaller loss of quality beyond the trained length is called holding up

_INTERVALS = "The intervals are over seeds alone, of models and of data order. "


def conclusions(summary: Summary) -> list[str]:
    """Sentences, in paragraphs: what was found, and what does not follow."""
    return [_trained_length(summary), *_beyond(summary), *_order(summary), _limits(summary)]


def _trained_length(summary: Summary) -> str:
    loss, best = summary.loss, summary.loss.best()
    first, *others = summary.schemes
    if not others:
        return f"Only {first} was studied, so nothing is compared."
    if len(summary.seeds) < 2:
        found = ", ".join(f"{scheme} {loss.mean(scheme).mean:.3f}" for scheme in summary.schemes)
        return (
            f"Loss at the trained length, of one seed: {found} nats. One seed gives no interval: how much of a "
            "difference is chance cannot be said, and no scheme is called the best."
        )
    if best is not None:
        difference = loss.difference(best, others[0], loss.shared_confidence)
        return (
            f"At the trained length {best} has the lowest loss, {loss.mean(best).mean:.3f} nats; the next one, "
            f"{others[0]}, is {_words(difference)} above it, seed by seed, and the intervals of the differences to all "
            f"{len(others)} others exclude 0 (95 per cent, shared among them).{_unequal(summary)}"
        )
    return (
        f"At the trained length {first} has the lowest mean loss, {loss.mean(first).mean:.3f} nats, but "
        f"{_listed(loss.undecided())} cannot be told from it with {len(summary.seeds)} seeds: no scheme is called the "
        f"best.{_unequal(summary)}"
    )


def _unequal(summary: Summary) -> str:
    seeds = {scheme: sorted(summary.loss.values[scheme]) for scheme in summary.schemes}
    if all(found == summary.seeds for found in seeds.values()):
        return ""
    told = "; ".join(f"{scheme} {', '.join(map(str, found))}" for scheme, found in seeds.items())
    return f" Not all have the same seeds ({told}): schemes are ranked and compared by the seeds that they share."


def _beyond(summary: Summary) -> list[str]:
    if len(summary.at_lengths) < 2:
        return []
    near, far = summary.at_lengths[0], summary.at_lengths[-1]
    holds, suffers, unclear, cannot = [], [], [], []
    for scheme in summary.schemes:
        changes = [value - near.values[scheme][seed] for seed, value in far.values[scheme].items()]
        if not changes:
            cannot.append(scheme)
            continue
        change = mean_of(changes, CONFIDENCE)
        low, high = change.mean - (change.half_width or 0), change.mean + (change.half_width or 0)
        found = holds if high <= _SMALL else suffers if low > _SMALL else unclear
        interval = "" if change.half_width is None else f" ± {change.half_width:.2f}"
        found.append(f"{scheme} ({round(change.mean, 2) + 0.0:+.2f}{interval})")
    text = f"Read in windows of {summary.plan.settings.extend} times the trained length, the same tokens cost"
    parts = []
    if holds:
        parts.append(f"at most {_SMALL} nats more than at the trained length under {_listed(holds)}")
    if suffers:
        parts.append(
            f"{'more' if holds else f'over {_SMALL} nats more than at the trained length'} under {_listed(suffers)}"
        )
    if unclear:
        parts.append(f"maybe more, maybe not, as seeds differ too much to tell, under {_listed(unclear)}")
    sentence = f"{text} {'; '.join(parts)}." if parts else ""
    if cannot:
        sentence += f" {_listed(cannot)} cannot read so much at all."
    limited = summary.untrained_rows
    if limited:
        sentence += f" The table of {_listed(limited)} was lengthened with rows that no training has touched."
    return [sentence.strip()]


def _order(summary: Summary) -> list[str]:
    sentences = []
    for probe, measures in summary.probes.items():
        measure = measures[0]
        shares = {scheme: f"{measure.mean(scheme).mean:.2f}" for scheme in measure.ranked()}
        highest = max(shares.values(), default="")
        best = f"{_listed([scheme for scheme, share in shares.items() if share == highest])} {highest}"
        chance = f"guessing gives {measure.chance:.2g}"
        guessing = [scheme for scheme in shares if measure.is_guessing(scheme)]
        unclear = [scheme for scheme in shares if scheme not in guessing and _reaches_chance(measure, scheme)]
        if len(guessing) == len(shares):
            guess = f"no share is above guessing ({measure.chance:.2g})"
            sentences.append(f"{probe}: {guess if shares else 'no sentence of the text has words to shuffle'}.")
            continue
        best += ", more than all others by more than the intervals" if measure.best() else ""
        told = f"; at guessing: {_listed(guessing)}" if guessing else ""
        told += f"; seeds differ too much to tell: {_listed(unclear)}" if unclear else ""
        sentences.append(f"{probe}: the highest share of right answers is {best} ({chance}){told}.")
    return [f"Order probes at the trained length. {' '.join(sentences)}"] if sentences else []


def _limits(summary: Summary) -> str:
    plan, training = summary.plan, summary.plan.training
    seeds = len(summary.seeds)
    tried = "one seed that was tried" if seeds == 1 else f"{seeds} seeds that were tried"
    return (
        f"This holds for this text, for models of this size trained for {training['steps']:,} steps of "
        f"{training['batch_size']} x {plan.context_length} tokens with one learning rate for all, and for the {tried}. "
        f"{_INTERVALS if seeds > 1 else ''}"
        "Another text, or another part of it kept for validation, may tell otherwise. "
        "Which scheme is best for a larger model, a longer training or a tuned learning rate does not follow. "
        "Speed and memory are those of the machine that it ran on."
    )


def _reaches_chance(measure: Measure, scheme: str) -> bool:
    low = measure.mean(scheme).low
    return low is not None and low <= measure.chance


def _words(difference: Mean) -> str:
    return f"{abs(difference.mean):.3f} ± {difference.half_width:.3f} nats"


def _listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
