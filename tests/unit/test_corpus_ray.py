"""The engine `ray`, on a Ray that the test starts."""

import subprocess
import sys

import pytest

from corpus_cases import digests, planned, write_text, write_tokenizer
from tokenspace.corpus import run_job
from tokenspace.errors import SettingError

pytest.importorskip("ray")

# In a process of its own: Ray leaves threads and sockets behind that the tests would count as theirs.
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[4])
from pathlib import Path
import ray
from corpus_cases import planned
from tokenspace.corpus import run_job
from tokenspace.errors import TextError

if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    text, tokenizer, out = map(Path, sys.argv[1:4])
    job = planned(text, tokenizer, out)
    job.run(3)  # is left as it is
    told = []
    run_job(job, engine="ray", watch=lambda *counts: told.append(counts))
    assert told[-1][1] == told[-1][2] and told[-1][3] > 0, told[-1]
    changed = planned(text, tokenizer, Path(f"{out}-changed"))
    (text / "short.md").write_text("other")
    try:
        run_job(changed, engine="ray", workers=1)
    except TextError as error:
        print("refused:", error)
    ray.shutdown()
"""


@pytest.mark.slow
def test_a_ray_cluster_makes_the_same_bytes(tmp_path):
    text, tokenizer = write_text(tmp_path / "text"), write_tokenizer(tmp_path / "tokenizer.json")
    run_job(planned(text, tokenizer, tmp_path / "local"), workers=1)
    arguments = [text, tokenizer, tmp_path / "ray", __file__.rpartition("unit")[0]]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")
    assert "refused:" in done.stdout and "short.md" in done.stdout


def test_the_memory_of_a_process_is_no_place_for_a_cluster(tmp_path):
    job = planned(
        write_text(tmp_path / "text"), write_tokenizer(tmp_path / "tokenizer.json"), "memory://of-one-process"
    )
    with pytest.raises(SettingError, match="`out` must be a place that every machine sees"):
        run_job(job, engine="ray")
