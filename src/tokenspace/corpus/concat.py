"""Corpora that were built one by one, as one: no text is read, and no id written.

Files are taken over as hard links where the file system allows it, else as copies; in both cases
the corpora given stay as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tokenspace.corpus.build import numbered
from tokenspace.corpus.manifest import FILE_NAME, TOKENIZER_FILE, Manifest, Split
from tokenspace.corpus.publish import file_crc32
from tokenspace.corpus.task import SPLITS
from tokenspace.errors import CorpusError, SettingError
from tokenspace.files import new_folder
from tokenspace.store import LocalStore, Store
from tokenspace.tokenizer import TokenStatistics


def concatenate(
    corpora: Sequence[str | Path], out: str | Path, *, progress: Callable[[int, int], None] | None = None
) -> Manifest:
    """Publish a corpus with the shards of all `corpora`, in this order.

    Args:
        corpora: Folders or URLs of corpora; of the same tokenizer, dtype and end-of-text.
        out: Folder to make; must not exist.
        progress: Called with the bytes of ids done and in all.

    Returns:
        The new manifest; it has no plan.

    Raises:
        SettingError: something stands at `out`, or there is no corpus to take.
        CorpusError: one is missing or damaged, or not of the first one's kind.
        DiskError: the disk is full; nothing is left behind.
    """
    if not corpora:
        raise SettingError("corpora", "name at least one", "none", "Give corpus folders")
    stores = [Store.of(place) for place in corpora]
    manifests = [Manifest.from_bytes(store.read(FILE_NAME), store.path_of(FILE_NAME)) for store in stores]
    for store, manifest in zip(stores, manifests, strict=True):
        _check_alike(store, manifest, manifests[0])
    total = sum(shard.bin_bytes for manifest in manifests for part in manifest.splits.values() for shard in part.shards)
    done = 0
    with new_folder(Path(out)) as folder:
        target = LocalStore(folder)
        splits = {}
        for name in SPLITS:
            shards = []
            parts = [(s, m.splits[name]) for s, m in zip(stores, manifests, strict=True) if name in m.splits]
            for store, shard in ((store, shard) for store, part in parts for shard in part.shards):
                new_name = numbered(name, len(shards))
                for file in shard.files:
                    target.copy_from(store, file, file.replace(shard.name, new_name, 1))
                shards.append(replace(shard, name=new_name, task=None))
                done += shard.bin_bytes
                if progress:
                    progress(done, total)
            if shards:
                splits[name] = Split.of(shards, max(part.max_id for _, part in parts))
        target.create(TOKENIZER_FILE, stores[0].read(TOKENIZER_FILE))
        manifest = replace(
            manifests[0],
            validation_fraction=max(manifest.validation_fraction for manifest in manifests),
            splits=splits,
            num_sources=sum(manifest.num_sources for manifest in manifests),
            text_bytes=sum(manifest.text_bytes for manifest in manifests),
            statistics=sum((manifest.statistics for manifest in manifests), TokenStatistics()),
            tokenizer_crc32=file_crc32(target, TOKENIZER_FILE),
            plan_crc32=None,
            first_identity=None,
        )
        target.create(FILE_NAME, manifest.to_bytes())
    return manifest


def _check_alike(store: Store, manifest: Manifest, first: Manifest) -> None:
    for what, found, wanted in (
        ("tokenizer", _stamp(manifest), _stamp(first)),
        ("dtype", manifest.dtype, first.dtype),
        ("end_of_text", manifest.end_of_text, first.end_of_text),
    ):
        if found != wanted:
            name, step = f"{what} of {store.place}", "Build it again with that one's settings"
            raise CorpusError(name, f"be that of the first corpus, {wanted}", found, step)


def _stamp(manifest: Manifest) -> str:
    return f"{manifest.tokenizer.name} ({manifest.tokenizer.identity[:12]})"
