"""From a text to a study folder with its corpus and its plan, or back into one that exists."""

import difflib
import hashlib
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tokenspace.corpus import Corpus, TextSource, build_from_source, is_corpus
from tokenspace.errors import CorpusError, SettingError, check_at_least, check_type
from tokenspace.study.plan import StudyPlan, StudySettings
from tokenspace.text import list_files
from tokenspace.training.config import OWNERS, split_settings
from tokenspace.training.parts import make_loader
from tokenspace.training.sizes import choose_sizes

_PROVISIONAL_STEPS = 100
_BLOCK = 1 << 20
_LEAST_CONTEXT = 8  # in fewer tokens the probes have no questions
_INSTEAD = {
    "positions": "schemes",
    "causal": "objective",
    "memory_length": "a training of its own",
    "seed": "seeds",
}
_OWN_SIZES = {"vocab_size", "context_length", "causal"}  # what a study must know of a caller's own model

Progress = Callable[[str, int, int | None], None]  # task, done, in all where known


@dataclass(frozen=True)
class Text:
    """What is studied.

    Attributes:
        sources: Files, folders, …, or one corpus folder.
        documents: Or text in memory.
        tokenizer: See `Tokenizer.from_spec`; None for what suits a study, or a corpus's own.
    """

    sources: tuple[str, ...]
    documents: tuple[str, ...] | None = None
    tokenizer: str | None = None

    @property
    def is_corpus(self) -> bool:
        """Whether it has token ids already."""
        return len(self.sources) == 1 and is_corpus(Path(self.sources[0]))

    @property
    def name(self) -> str:
        """What a folder may be called after."""
        return Path(self.sources[0]).stem if self.sources and self.sources[0] != "-" else "text"

    def asked(self) -> dict[str, Any]:
        """What tells it from other texts, as JSON holds it."""
        digest = hashlib.sha256()
        for document in self.documents or ():
            digest.update(document.encode("utf-8", "surrogatepass") + b"\0")
        return {
            "sources": list(self.sources),
            "documents": digest.hexdigest() if self.documents is not None else None,
            "tokenizer": self.tokenizer,
            "content": self._content(),
        }

    def _content(self) -> Any:
        """What local sources hold, or a corpus; None where nothing is known of it."""
        if self.is_corpus:
            return Corpus.open(self.sources[0]).identity
        if any(source == "-" or not Path(source).exists() for source in self.sources):
            return None
        size = crc = 0
        for path in filter(Path.is_file, map(Path, list_files(self.sources))):
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    size, crc = size + len(block), zlib.crc32(block, crc)
        return {"bytes": size, "crc32": crc}

    def build(self, folder: Path, progress: Progress) -> Path:
        """The folder of its token ids: its own, or one made in `folder`, or made there before."""
        if self.is_corpus:
            if self.tokenizer is not None:
                next_step = "Leave it out; the corpus brings its own"
                raise SettingError("tokenizer", "not be given with a corpus", self.tokenizer, next_step)
            return Path(self.sources[0]).resolve()
        if not is_corpus(folder / "corpus"):
            given = self.documents is not None
            source = TextSource.documents(self.documents) if given else TextSource.files(self.sources)
            build_from_source(source, self.tokenizer or "train:2048", folder / "corpus", watch=progress)
        return Path("corpus")


def make_plan(
    text: Text,
    folder: Path,
    settings: dict[str, Any],
    progress: Progress,
    steps_of: Callable[[StudyPlan], int] | None,
    own: bool = False,
) -> StudyPlan:
    """Build the corpus, choose sizes, and fix the number of steps.

    Args:
        text: What is studied.
        folder: Of the study.
        settings: Fields of `StudySettings`, `ModelConfig` and `TrainingConfig`.
        progress: Called as text is encoded.
        steps_of: Finds the number of steps where `settings` have none.
        own: Whether the models are the caller's own, whose sizes are no matter of the plan.

    Raises:
        SettingError: a setting breaks a rule, or the text is too short for the lengths asked.
    """
    of_study, given = _parted(settings, own)
    check_at_least(_LEAST_CONTEXT, **{name: value for name, value in settings.items() if name == "context_length"})
    study = StudySettings(**of_study)
    given["model"]["causal"] = study.objective == "causal"
    corpus = text.build(folder, progress)
    train, validation = Corpus.open(folder / corpus), _validation(folder / corpus)
    timed = "steps" not in given["training"] and not given["budget"]
    if timed:
        given["training"]["steps"] = _PROVISIONAL_STEPS

    least = given["model"].get("context_length", _LEAST_CONTEXT)
    _check_length(validation, least, study.extend)  # before the sizes of a text that is too short for any

    def plan() -> StudyPlan:
        sizes = choose_sizes(train.num_tokens, validation.num_tokens, train.vocab_size, given)
        _check_length(validation, sizes["model"]["context_length"], study.extend)
        return StudyPlan(
            asked=_asked(text, settings, own),
            settings=study,
            corpus=corpus.as_posix(),
            corpus_identity=train.identity,
            model={name: value for name, value in sizes["model"].items() if not own or name in _OWN_SIZES},
            training=sizes["training"],
        )

    made = plan()
    if timed and steps_of is not None:
        given["training"]["steps"] = steps_of(made)
        made = plan()
    make_loader(train, made.model_config("none"), made.training_config(0))  # these check themselves
    return made


def check_same_study(plan: StudyPlan, text: Text, settings: dict[str, Any], own: bool, folder: Path) -> None:
    """Refuse to go on with a study of another text or other settings.

    Raises:
        SettingError: names what differs.
    """
    before, now = (
        {**asdict(StudySettings()), **asked["settings"], **asked} for asked in (plan.asked, _asked(text, settings, own))
    )  # what is left out means the same as the default
    next_step = "Give the same, to go on with it, or another --out"
    known = None not in (before.get("content"), now["content"])
    moved = {"sources"} if known and before["content"] == now["content"] else set()  # the same text at another path
    for name in sorted((before.keys() | now.keys()) - {"settings", "content", *moved}):
        one, other = (side.get(name, "left out") for side in (before, now))
        if one != other:
            raise SettingError(f"{name} of the study in {folder}", f"be {one}", other, next_step)
    if known and before["content"] != now["content"]:
        rule = "hold what they held when it began"
        raise SettingError(
            f"sources of the study in {folder}", rule, "changed", "Bring the text back, or give another --out"
        )


def _asked(text: Text, settings: dict[str, Any], own: bool) -> dict[str, Any]:
    """What a caller gave, as JSON holds it; scheme and seeds are no part of it."""
    return {**text.asked(), "settings": settings, **({"build": True} if own else {})}


def _parted(settings: dict[str, Any], own: bool) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings of the study itself, and the others by owner."""
    types = {field.name: field.type for field in fields(StudySettings)}
    of_study = {name: value for name, value in settings.items() if name in types}
    for name, value in of_study.items():
        check_type(name, value, types[name], "Correct it, or leave it out")
    known = {*types, *(field.name for owner in OWNERS.values() for field in fields(owner))}
    for name in settings.keys() - known - OWNERS.keys():
        nearest = difflib.get_close_matches(name, known - _INSTEAD.keys(), n=1, cutoff=0.0)[0]
        rule = f"be one of {', '.join(sorted(known - _INSTEAD.keys()))}"
        raise SettingError("setting", rule, name, f"Did you mean {nearest!r}?")
    given = split_settings({name: value for name, value in settings.items() if name not in types})
    for name, instead in _INSTEAD.items():
        for owner in given.values():
            if name in owner:
                raise SettingError(name, "be left out of a study", owner[name], f"Use {instead}")
    for name in sorted(given["model"].keys() - _OWN_SIZES) if own else ():
        rule = "be left out where build makes the model"
        raise SettingError(name, rule, given["model"][name], "Set it in build")
    return of_study, given


def _validation(corpus: Path) -> Corpus:
    try:
        return Corpus.open(corpus, "validation")
    except CorpusError as error:
        if "validation" not in str(error):
            raise
        next_step = "Build it with a validation fraction above 0, or give the text"
        raise SettingError("corpus", "have a validation part", "without", next_step) from error


def _check_length(validation: Corpus, context_length: int, extend: int) -> None:
    """Two of the longest windows, so that more than one place is scored."""
    needed = 2 * extend * context_length + 1
    if validation.num_tokens < needed:
        more = needed / validation.num_tokens
        rule = f"have {needed} tokens for validation, twice the {extend} x {context_length} asked for"
        smaller = "a smaller --extend" if context_length == _LEAST_CONTEXT else "a smaller --context or --extend"
        next_step = f"Give a text {more:.1f} times as long, or {smaller}"
        raise SettingError("text", rule, validation.num_tokens, next_step)
