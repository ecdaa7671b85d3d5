"""CLIP's tokenizer: known ids, agreement with OpenAI's own, and the word when it is absent."""

import subprocess
import sys

import pytest

from mmdg_model.mmdg_plus_plus.config import DomainPromptConfig
from mmdg_model.mmdg_plus_plus.prompt_sentences import FaceClass, sentences, template
from mmdg_model.scorer import Modality
from tests.mmdg_model.mmdg_plus_plus.published_clips import openai_file

SENTENCES = [template(sentence, 5) for modality in Modality for face_class in FaceClass
             for sentence in sentences(modality, face_class)]


@pytest.fixture(scope="module")
def tokenizer():
    pytest.importorskip("instant_clip_tokenizer", reason="CLIP's tokenizer (extra plusplus) is not installed")
    from mmdg_model.mmdg_plus_plus.tokenizer import ClipTokenizer
    return ClipTokenizer()


@pytest.mark.parametrize(("text", "ids"), [
    ("a photo of a cat", [320, 1125, 539, 320, 2368]),
    ("A person riding a motorcycle", [320, 2533, 6765, 320, 10297]),
    ("x x", [343, 343]),
    ("", []),
])
def test_published_ids(tokenizer, text, ids):
    assert tokenizer.encode(text) == ids


def test_vocabulary_is_the_text_towers(tokenizer):
    assert (tokenizer.start_of_text, tokenizer.end_of_text) == (49406, 49407)
    assert tokenizer.end_of_text + 1 == DomainPromptConfig().vocabulary_size


@pytest.mark.parametrize(("word", "pieces"), [("spoof", 2), ("modality", 2), ("bonafide", 3), ("face", 1)])
def test_words_that_are_split(tokenizer, word, pieces):
    assert len(tokenizer.encode(word)) == pieces


def test_equals_openais_tokenizer(tokenizer):
    try:
        module = openai_file("simple_tokenizer")
    except ModuleNotFoundError as error:
        pytest.skip(f"no tokenizer of OpenAI's to compare with: {error}")
    theirs = module.SimpleTokenizer()
    for text in [*SENTENCES, "Don't   stop: 3D-print, RGB/NIR (850 nm)!", "naïve café — 100 %"]:
        assert tokenizer.encode(text) == theirs.encode(text), text


def test_absence_is_reported_with_the_remedy():
    code = ("import sys; sys.modules['instant_clip_tokenizer'] = None\n"
            "import mmdg_model.mmdg_plus_plus.domain_prompts, mmdg_model.mmdg_plus_plus.network\n"  # need no tokenizer
            "import mmdg_model.mmdg_plus_plus.tokenizer")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'mmdg-live[plusplus]'" in answer.stderr.splitlines()[-1]
    assert "tokenizer.py" in answer.stderr
