"""A corpus is the same whatever the number of workers, the order of tasks and the repeats; and it holds the text."""

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_cases import WORDS, digests, write_tokenizer
from tokenspace.corpus import BuildSettings, Corpus, plan_corpus, publish_job, run_job
from tokenspace.tokenizer import Tokenizer

DOCUMENT = st.lists(st.sampled_from([*WORDS, "\n", "…", "3"]), max_size=60).map(" ".join)
FOLDER = tempfile.TemporaryDirectory()
TOKENIZER = write_tokenizer(Path(FOLDER.name) / "tokenizer.json")
TOKENIZER_OBJECT = Tokenizer.from_file(TOKENIZER)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    plain=st.lists(DOCUMENT, max_size=3),
    rows=st.lists(DOCUMENT, min_size=1, max_size=40),
    task_bytes=st.integers(300, 3000),
    shard_bytes=st.integers(200, 2000),
    fraction=st.sampled_from([0, 0.1, 0.4]),
    data=st.data(),
)
def test_bytes_depend_on_the_plan_alone(plain, rows, task_bytes, shard_bytes, fraction, data):
    if not any(text.strip() for text in rows):
        rows = [*rows, "a cat sat"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text").mkdir()
        for number, text in enumerate(plain):
            (folder / "text" / f"{number}.txt").write_bytes(text.encode())
        lines = "".join(json.dumps({"text": text}) + "\n" for text in rows)
        (folder / "text" / "rows.jsonl").write_text(lines)
        chosen = BuildSettings(validation_fraction=fraction, shard_bytes=shard_bytes)

        def plan(out):
            return plan_corpus([folder / "text"], str(TOKENIZER), folder / out, chosen, task_bytes=task_bytes)

        run_job(plan("one"), workers=1)
        job = plan("other")
        tasks = list(range(len(job.plan.tasks)))
        repeats = data.draw(st.lists(st.sampled_from(tasks), max_size=3))
        for index in data.draw(st.permutations(tasks + repeats)):
            job.run(index)
        publish_job(job)
        assert digests(folder / "one") == digests(folder / "other")
        found = []
        for split in Corpus.open(folder / "one").manifest.splits:
            corpus = Corpus.open(folder / "one", split)
            ids = corpus.tokens(0, corpus.num_tokens)
            found += TOKENIZER_OBJECT.decode_bytes(ids).split(b"<|endoftext|>")
        assert sorted(b"".join(found)) == sorted("".join([*plain, *rows]).encode())
        if not fraction:
            assert sorted(found) == sorted(text.encode() for text in [*plain, *rows, ""])
