"""Training a vocabulary: what it keeps together, and that it gives the same one each time."""

import os
import random
import subprocess
import sys

import pytest
import tokenizers

from tokenspace.errors import SettingError, TokenizerError
from tokenspace.tokenizer import Tokenizer, TokenStatistics, bpe_training

# Everyday sentences written for this test.
HINDI = """
बिल्ली चटाई पर बैठी थी और कुत्ता दरवाज़े के पास सो रहा था। सुबह की धूप खिड़की से आकर कमरे में फैल गई।
माँ ने रसोई में चाय बनाई और पिताजी ने अख़बार पढ़ना शुरू किया। बच्चे विद्यालय जाने की तैयारी कर रहे थे।
नदी के किनारे एक पुराना पेड़ था जिसकी छाया में किसान दोपहर को विश्राम करते थे। गाँव के लोग शाम को वहीं मिलते थे।
किताब में लिखा था कि हर शब्द का अपना अर्थ होता है, परन्तु वाक्य में उसका स्थान भी अर्थ बदल देता है।
राम ने मोहन को पुस्तक दी। मोहन ने राम को पुस्तक दी। दोनों वाक्यों में शब्द वही हैं, पर अर्थ अलग है।
बाज़ार में सब्ज़ियाँ बिक रही थीं: आलू, प्याज़, टमाटर, गोभी, मटर और पालक। दुकानदार ग्राहकों को भाव बता रहा था।
वर्षा ऋतु में बादल गरजते हैं, बिजली चमकती है और खेतों में पानी भर जाता है। मोर नाचने लगते हैं।
दादी कहानी सुनाती थीं कि एक राजा के तीन बेटे थे और तीनों बहुत बुद्धिमान थे। राजा ने उनकी परीक्षा ली।
रेलगाड़ी स्टेशन पर रुकी और यात्री उतरने लगे। कुली सामान उठाकर चल पड़े। चायवाला ज़ोर से पुकार रहा था।
शिक्षक ने विद्यार्थियों से पूछा कि पृथ्वी सूर्य के चारों ओर क्यों घूमती है। एक विद्यार्थी ने उत्तर दिया।
हमारे देश में अनेक भाषाएँ बोली जाती हैं और हर भाषा का अपना साहित्य है। भाषा सीखने से मन का विस्तार होता है।
समुद्र के किनारे मछुआरे जाल फैलाते हैं और सूरज डूबने से पहले घर लौट आते हैं। लहरें रेत पर चित्र बनाती हैं।
"""
# Words from which many more sentences are made, as a short text cannot fill a vocabulary.
WHO = """माँ ने|पिताजी ने|दादी ने|दादाजी ने|शिक्षक ने|विद्यार्थी ने|किसान ने|दुकानदार ने|राजा ने|मंत्री ने|लड़की ने|लड़के ने|
मछुआरे ने|डॉक्टर ने|पड़ोसी ने|यात्री ने|कवि ने|चित्रकार ने|बढ़ई ने|सैनिक ने|बच्चों ने|मित्रों ने|बहन ने|भाई ने"""
WHERE = """घर में|रसोई में|बाज़ार में|विद्यालय में|खेत में|नदी के किनारे|पेड़ की छाया में|खिड़की के पास|दरवाज़े पर|स्टेशन पर|
गाँव में|शहर में|मंदिर के सामने|पुस्तकालय में|बगीचे में|समुद्र के किनारे|पहाड़ी पर|आँगन में|छत पर|सड़क पर"""
WHEN = """सुबह|शाम को|दोपहर को|रात को|कल|आज|वर्षा के बाद|सूरज डूबने से पहले|त्योहार के दिन|छुट्टियों में|सर्दियों में|बहुत पहले"""
WHAT = """एक नई किताब पढ़ी|गरम चाय बनाई|मीठा गीत गाया|पुरानी कहानी सुनाई|ताज़ी सब्ज़ियाँ ख़रीदीं|सुंदर चित्र बनाया|लम्बा पत्र लिखा|
ठंडा पानी पिया|स्वादिष्ट खाना पकाया|रंगीन कपड़े धोए|मीठे आम खाए|बिल्ली को दूध दिया|कुत्ते को रोटी दी|पौधों में पानी डाला|
मित्र से बातें कीं|अख़बार पढ़ना शुरू किया|कठिन प्रश्न पूछा|सही उत्तर दिया|पुराना संदूक खोला|भाषा का अर्थ समझाया"""
HELD_OUT = """
शाम को बच्चे नदी के किनारे खेल रहे थे और माँ घर में खाना बना रही थीं। बिल्ली खिड़की पर बैठी धूप देख रही थी।
शिक्षक ने कहा कि हर भाषा के शब्द और वाक्य का अपना स्थान होता है। विद्यार्थी किताब पढ़ने लगे।
किसान खेतों में काम करते हैं, वर्षा में बादल आते हैं और पेड़ की छाया में लोग मिलते हैं।
"""


def hindi_text(sentences=1500):
    """The sentences above, and as many more made of the words."""
    draw = random.Random(0)
    words = [[phrase.strip() for phrase in phrases.split("|")] for phrases in (WHEN, WHO, WHERE, WHAT)]
    return HINDI + "\n".join(" ".join(map(draw.choice, words)) + "।" for _ in range(sentences))


def under_gpt2s_pattern(documents, vocab_size):
    """The same training with GPT-2's own split pattern."""
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(documents, trainer)
    library.add_special_tokens(["<|endoftext|>"])
    return library


def test_hindi_not_trained_on_takes_at_most_seven_tenths_of_gpt2s_pattern():
    text = hindi_text()
    own, other = Tokenizer.train([text], 8000), under_gpt2s_pattern([text], 8000)  # each takes what it can use
    assert len(own.encode(HELD_OUT)) <= 0.7 * len(other.encode(HELD_OUT).ids)


def test_marks_and_joiners_stay_with_their_letter():
    words = ["क्षत्रिय", "श्रीमान्", "क्\u200dष", "می\u200cخواهم", "தமிழ்", "e\u0301te\u0301"]
    tokenizer = Tokenizer.train([" ".join(words * 50)], 2000)
    for word in words:
        assert len(tokenizer.encode(f" {word}")) == 1


def test_marks_after_no_letter_stay_with_what_they_follow():
    tokenizer = Tokenizer.train(["❤️ 👨‍👩‍👧 " * 50], 2000)
    assert [tokenizer.decode([token_id]) for token_id in tokenizer.encode("❤️ 👨‍👩‍👧")] == ["❤️", " 👨‍👩‍👧"]


def test_words_digits_and_contractions_are_split_as_in_gpt2():
    tokenizer = Tokenizer.train(["we'll don't x 1234 !? a_b \n\n\n end " * 30], 2000)
    pieces = [tokenizer.decode([token_id]) for token_id in tokenizer.encode("we'll don't 1234 !? a_b \n\n\n end")]
    assert pieces == ["we", "'ll", " don", "'t", " 1234", " !?", " a", "_", "b", " \n\n\n", " end"]


def test_the_end_of_text_is_the_last_id():
    tokenizer = Tokenizer.train(["to be or not to be <|endoftext|> " * 30], 270)
    assert tokenizer.vocab_size == 270
    assert tokenizer.eot_id == 269
    assert tokenizer.encode("<|endoftext|>", "all") == [269]
    assert 269 not in tokenizer.encode("<|endoftext|>")


def test_a_small_text_gives_a_smaller_vocabulary():
    assert Tokenizer.train(["the cat the cat"], 8000).vocab_size < 270


@pytest.mark.parametrize("documents", [[], [""], ["", ""]])
def test_no_text_gives_the_bytes_and_the_end_of_text(documents):
    tokenizer = Tokenizer.train(documents, 300)
    assert tokenizer.vocab_size == 257
    assert tokenizer.decode(tokenizer.encode("any हिन्दी 😀")) == "any हिन्दी 😀"


def test_the_smallest_vocabulary_is_257():
    assert Tokenizer.train([HINDI], 257).vocab_size == 257
    with pytest.raises(SettingError) as error:
        Tokenizer.train([HINDI], 256)
    assert str(error.value) == "`vocab_size` must be a whole number of at least 257, but is 256. Give 257 or more."


def test_the_same_text_gives_the_same_tokenizer_in_any_process():
    code = (
        "import sys; from tokenspace.tokenizer import Tokenizer; sys.stdin.reconfigure(encoding='utf-8')\n"
        "print(Tokenizer.train(sys.stdin, 900).identity)"
    )
    identities = {
        subprocess.run(
            [sys.executable, "-c", code], input=HINDI.encode(), env=environment(seed), capture_output=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert identities == {Tokenizer.train(HINDI.splitlines(keepends=True), 900).identity.encode()}


def environment(seed):
    return {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path), "RAYON_NUM_THREADS": seed}


def test_long_documents_are_cut_without_changing_the_result(monkeypatch):
    whole = Tokenizer.train([HINDI * 3], 900)
    monkeypatch.setattr(bpe_training, "_LONGEST_PIECE", 50)
    assert Tokenizer.train([HINDI * 3], 900).identity == whole.identity


def test_progress_counts_documents_and_characters(monkeypatch):
    monkeypatch.setattr(bpe_training, "_LONGEST_PIECE", 4)
    seen = []
    Tokenizer.train(["abcdef ghi", "", "xy"], 257, progress=lambda *counts: seen.append(counts))
    assert seen == [(0, 6), (1, 10), (3, 12)]


def test_training_prints_nothing(capfd):
    Tokenizer.train([HINDI], 300)
    assert capfd.readouterr() == ("", "")


def test_a_lone_surrogate_is_refused_with_its_place():
    with pytest.raises(TokenizerError) as error:
        Tokenizer.train(["fine", "ab\udfffc"], 300)
    assert str(error.value) == (
        "`character 2 of document 1` must be one of Unicode, no lone surrogate, but is '\\udfff'. "
        "Read it with errors='replace', or remove that character."
    )


def test_an_error_of_the_source_comes_through():
    def documents():
        yield "one"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        Tokenizer.train(documents(), 300)


def statistics_of(tokenizer, text):
    return TokenStatistics.of([text], tokenizer.encode_batch([text])[0], tokenizer.partial_utf8)


def test_statistics_over_pieces_are_those_of_the_whole():
    tokenizer = Tokenizer.gpt2()
    pieces = ("बिल्ली चटाई", " पर बैठी", "\nthe cat")
    statistics = sum((statistics_of(tokenizer, piece) for piece in pieces), TokenStatistics())
    ids = tokenizer.encode("".join(pieces))
    assert (statistics.words, statistics.tokens, statistics.characters) == (6, len(ids), len("".join(pieces)))
    assert statistics.tokens_per_word == len(ids) / 6
    assert statistics.partial_share == tokenizer.partial_utf8[ids].mean()


def test_a_tokenizer_that_tears_the_script_apart_is_advised_against():
    advice = "this tokenizer does not know the script; train one on the text with --tokenizer train:8000"
    assert statistics_of(Tokenizer.gpt2(), HELD_OUT).remarks()[1:] == [advice]
    assert statistics_of(Tokenizer.train([HINDI], 700), HELD_OUT).remarks()[1:] == []
    assert statistics_of(Tokenizer.gpt2(), "the cat sat on the mat").remarks() == [
        "1.00 tokens a word; 0.0% of them are no valid UTF-8 alone"
    ]


def test_tokens_without_text_are_not_remarked_upon():
    assert TokenStatistics(tokens=5, partial_tokens=2).remarks() == []


def test_statistics_of_nothing_are_zero():
    statistics = TokenStatistics()
    assert (statistics.tokens_per_word, statistics.partial_share) == (0.0, 0.0)
    assert len(statistics.remarks()) == 1
