"""Tokenizers of every family, small, and what the tests of vocabulary edits share."""

import json

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from tokenspace import Tokenizer

TEXTS = [
    "The cat sat on the mat. The dog sat by the door, and the cat saw the dog.",
    "In the evening the cat slept on the mat; the dog slept by the door.",
    "Naïve readers said: 3,141 times \u201cno\u201d… बिल्ली चटाई पर बैठी।",
] * 20


def byte_level(size=340):
    return Tokenizer.train(TEXTS, size)


def _special(library, *names):
    library.add_special_tokens([tokenizers.AddedToken(name, special=True, normalized=False) for name in names])


def ignoring_merges():
    """As Llama 3's: a word that is a token is taken whole."""
    settings = json.loads(byte_level().to_json())
    settings["model"]["ignore_merges"] = True
    return Tokenizer.from_json(json.dumps(settings), "ignoring merges")


def bpe_with_fallback():
    """As Llama 2's: characters, and bytes where there is none."""
    library = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=names, show_progress=False)
    library.train_from_iterator(TEXTS, trainer)
    settings = json.loads(library.to_str())
    settings["added_tokens"] = [token for token in settings["added_tokens"] if not token["content"].startswith("<0x")]
    library = tokenizers.Tokenizer.from_str(json.dumps(settings))
    library.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return Tokenizer(library, "BPE with fallback")


def unigram():
    """As T5's."""
    library = tokenizers.Tokenizer(models.Unigram())
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    names = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=names, unk_token="<unk>", show_progress=False)
    library.train_from_iterator(TEXTS, trainer)
    library.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return Tokenizer(library, "Unigram")


def word_piece():
    """As BERT's."""
    library = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=160, special_tokens=names, show_progress=False)
    library.train_from_iterator(TEXTS, trainer)
    library.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return Tokenizer(library, "WordPiece")


def end_of_word():
    """As CLIP's: the last piece of a word carries a mark."""
    library = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    library.train_from_iterator(TEXTS, trainer)
    return Tokenizer(library, "end of word")


FAMILIES = {
    "byte_level": byte_level,
    "ignoring_merges": ignoring_merges,
    "bpe_with_fallback": bpe_with_fallback,
    "unigram": unigram,
    "word_piece": word_piece,
    "end_of_word": end_of_word,
}
