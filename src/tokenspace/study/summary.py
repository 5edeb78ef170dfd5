"""The figures of a study's runs, joined: means over seeds, intervals, and which scheme is best.

Runs of one seed share their data order and all first draws but the scheme's own, so two
schemes are compared by their differences seed by seed. The best is named only where it
is better than each other scheme at the level that is left when as many comparisons
share 5 per cent (Bonferroni).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenspace.errors import SettingError
from tokenspace.study.measuring import CHANCES
from tokenspace.study.plan import StudyPlan
from tokenspace.study.probing import NUM_EXAMPLES, commonest_answer, task_window
from tokenspace.study.student import Mean, mean_of

CONFIDENCE = 0.95
_EQUAL = 1e-9  # half-widths below are of gaps that differ by rounding alone
_ERRORS = 2  # standard errors that a share of right answers may lie above guessing by chance


@dataclass(frozen=True)
class Measure:
    """One number that every run has, and which way is better.

    Attributes:
        name: Of the measure.
        title: As a table shows it.
        values: By scheme, by seed; a scheme that cannot be measured has none.
        lower_is_better: Else higher.
        digits: Shown after the point.
        chance: What guessing gives, for probes.
        questions: Right or wrong answers of a run, for probes.
        names_best: Whether less, or more, of it is a merit at all.
    """

    name: str
    title: str
    values: Mapping[str, Mapping[int, float]]
    lower_is_better: bool = True
    digits: int = 3
    chance: float | None = None
    questions: int = 256
    names_best: bool = True

    def mean(self, scheme: str) -> Mean | None:
        """Over seeds; None where there is no value."""
        values = self.values.get(scheme)
        return mean_of(list(values.values()), CONFIDENCE) if values else None

    def ranked(self) -> list[str]:
        """The schemes that have values, the best mean first: over the seeds that all of them have, if there are any."""
        found = {scheme: values for scheme, values in self.values.items() if values}
        shared = set.intersection(*map(set, found.values())) if found else set()

        def mean(scheme: str) -> float:
            values = found[scheme]
            return mean_of([values[seed] for seed in values if seed in shared or not shared]).mean

        return sorted(found, key=mean, reverse=not self.lower_is_better)

    def difference(self, scheme: str, other: str, confidence: float = CONFIDENCE) -> Mean | None:
        """Of `scheme` minus `other` over the seeds that both have; None without any."""
        mine, theirs = self.values[scheme], self.values[other]
        shared = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
        return mean_of(shared, confidence) if shared else None

    def best(self) -> str | None:
        """The scheme that is better than every other one; None where the intervals do not allow to say so."""
        ranked = self.ranked()
        if len(ranked) < 2 or self.undecided() or not self.names_best or self.is_guessing(ranked[0]):
            return None
        return ranked[0]

    def undecided(self) -> list[str]:
        """The schemes that the first of the ranking cannot be told from."""
        first, *others = self.ranked()
        return [other for other in others if not self._beats(first, other)]

    @property
    def shared_confidence(self) -> float:
        """Of one comparison, when the first of the ranking is compared with all others."""
        return 1 - (1 - CONFIDENCE) / max(1, len(self.ranked()) - 1)

    def is_guessing(self, scheme: str) -> bool:
        """Whether the share of right answers is no more than guessing gives, but for what is chance in so many."""
        if self.chance is None:
            return False
        found = self.mean(scheme)
        error = math.sqrt(self.chance * (1 - self.chance) / (self.questions * found.number))
        return found.mean <= self.chance + _ERRORS * error

    def _beats(self, scheme: str, other: str) -> bool:
        found = self.difference(scheme, other, self.shared_confidence)
        if found is None or (found.half_width or 0) < _EQUAL:  # equal gaps of two seeds tell nothing of a third
            return False
        gain = -found.mean if self.lower_is_better else found.mean
        return gain > found.half_width and round(gain, self.digits) > 0


@dataclass(frozen=True)
class Summary:
    """A study as tables and texts show it.

    Attributes:
        plan: What the runs share.
        schemes: Best loss first.
        seeds: Of the runs that are done.
        num_runs: How many are done.
        loss: At the trained length.
        at_lengths: Loss on the same final tokens, by multiple of the trained length.
        probes: Accuracy by probe and multiple of the trained length.
        speed: Tokens per second of training.
        memory: MiB that a training step takes.
        parameters: More than the model has without positions; of callers' own models, more than that with fewest has.
        by_position: Mean loss at each position in the window, by scheme; None where none was asked.
        untrained_rows: Schemes whose tables had to be lengthened with untrained rows.
    """

    plan: StudyPlan
    schemes: list[str]
    seeds: list[int]
    num_runs: int
    loss: Measure
    at_lengths: list[Measure]
    probes: dict[str, list[Measure]]
    speed: Measure
    memory: Measure
    parameters: Measure
    by_position: dict[str, list[float | None]]
    untrained_rows: list[str]

    @property
    def measures(self) -> list[Measure]:
        """All of them, in the order of the table's columns."""
        first = [measures[0] for measures in self.probes.values()]
        beyond = [measure for measures in self.probes.values() for measure in measures[1:]]
        return [self.loss, *self.at_lengths, *first, *beyond, self.speed, self.memory, self.parameters]


def summarize(plan: StudyPlan, figures: Sequence[Mapping[str, Any]]) -> Summary:
    """Join the figures of the runs that are done.

    Raises:
        SettingError: there are none.
    """
    if not figures:
        raise SettingError("runs", "be done, at least one of them", "none", "Let the study run for longer")
    schemes = list(dict.fromkeys(run["scheme"] for run in figures))

    def values(number: Any) -> dict[str, dict[int, float]]:
        found: dict[str, dict[int, float]] = {scheme: {} for scheme in schemes}
        for run in figures:
            if (value := number(run)) is not None:
                found[run["scheme"]][run["seed"]] = value
        return found

    loss = Measure("loss", "loss", values(lambda run: run["loss"]))
    numbers = [run["num_parameters"] for run in figures]
    without = min(numbers) if plan.has_own_models else min(plan.parameters_without_positions(), *numbers)

    def added(run: Mapping[str, Any]) -> int:
        return run["num_parameters"] - without

    by_position: dict[str, list[float | None]] = {}
    for scheme in schemes:
        runs = [run["loss_by_position"] for run in figures if run["scheme"] == scheme]
        by_position[scheme] = [_mean_or_none(column) for column in zip(*runs, strict=True)]
    return Summary(
        plan=plan,
        schemes=loss.ranked(),
        seeds=sorted({run["seed"] for run in figures}),
        num_runs=len(figures),
        loss=loss,
        at_lengths=[
            Measure(f"loss_{length}", f"at {length}", values(lambda run, i=i: run["loss_at_lengths"][i]))
            for i, length in enumerate(figures[0]["lengths"])
        ],
        probes=_probes(plan, figures, values),
        speed=Measure("tokens_per_second", "tokens/s", values(lambda run: run["tokens_per_second"]), False, 0),
        memory=Measure(
            "step_mib", "MiB a step", values(lambda run: run["step_bytes"] / 2**20), True, 1, names_best=False
        ),
        parameters=Measure("added_parameters", "parameters added", values(added), True, 0, names_best=False),
        by_position=by_position,
        untrained_rows=list(dict.fromkeys(run["scheme"] for run in figures if run["untrained_rows"])),
    )


def _probes(plan: StudyPlan, figures: Sequence[Mapping[str, Any]], values: Any) -> dict[str, list[Measure]]:
    found = {}
    for probe, first in figures[0]["probes"].items():
        found[probe] = [
            Measure(
                probe if i == 0 else f"{probe}_x{i + 1}",
                probe if i == 0 else f"{probe} at {i + 1}x",
                values(lambda run, probe=probe, i=i: run["probes"][probe]["accuracy"][i]),
                lower_is_better=False,
                chance=chance,
                questions=min(run["probes"][probe].get("pairs", NUM_EXAMPLES) for run in figures),
            )
            for i, chance in enumerate(_chances(plan, probe, len(first["accuracy"])))
        ]
    return found


def _chances(plan: StudyPlan, probe: str, number: int) -> list[float]:
    """What guessing gives at each multiple of the trained length; counts do not come evenly."""
    if probe != "count":
        return [CHANCES[probe]] * number
    return [commonest_answer(probe, task_window(plan.context_length), i + 1) for i in range(number)]


def _mean_or_none(column: Sequence[float | None]) -> float | None:
    found = [value for value in column if value is not None]
    return sum(found) / len(found) if found else None
