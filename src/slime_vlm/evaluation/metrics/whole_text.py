"""OCRBench v2: how near a whole text comes to the right one. NLTK computes BLEU and METEOR."""

from __future__ import annotations

import functools
import logging
import re
import warnings
from typing import Any

from rapidfuzz.distance import Levenshtein

_CHINESE = re.compile("[\u4e00-\u9fa5]")


def text_similarity(prediction: str, answer: str, wordnet: Any = None) -> float:
    """Return the mean of BLEU, METEOR, the F-measure of the sets of words, and one minus the edit distance.

    Args:
        prediction: The answer. An empty one counts 0.
        answer: The right text.
        wordnet: Synonyms for METEOR, as `nltk.corpus.wordnet` has them, which is the default.

    Raises:
        LookupError: NLTK's WordNet is not installed. `lacking_for_texts` says so beforehand.
    """
    from nltk.corpus import wordnet as installed
    from nltk.metrics.scores import f_measure
    from nltk.translate.bleu_score import sentence_bleu
    from nltk.translate.meteor_score import meteor_score

    if not prediction:
        return 0.0
    given, wanted = _words(prediction, answer)
    with warnings.catch_warnings():
        # NLTK warns of short texts, whose BLEU is 0.
        warnings.simplefilter("ignore")
        bleu = float(sentence_bleu([wanted], given))
    meteor = float(meteor_score([wanted], given, wordnet=installed if wordnet is None else wordnet))
    # Without any words NLTK has no F-measure, which the official script counts as 0.
    shared = float(f_measure(set(wanted), set(given)) or 0.0)
    return (bleu + meteor + shared + Levenshtein.normalized_similarity(prediction, answer)) / 4


def _words(prediction: str, answer: str) -> tuple[list[str], list[str]]:
    """Return the words of both: between blanks, or as jieba cuts them if either has Chinese characters."""
    if not (_CHINESE.search(prediction) or _CHINESE.search(answer)):
        return prediction.split(), answer.split()
    import jieba

    jieba.setLogLevel(logging.WARNING)
    return jieba.lcut(prediction), jieba.lcut(answer)


@functools.cache
def lacking_for_texts() -> str:
    """Return in one line what `text_similarity` lacks on this machine, or nothing."""
    try:
        import jieba  # noqa: F401
        from nltk.corpus import wordnet
    except ModuleNotFoundError as error:
        return f'whole texts need {error.name}, which is not installed: pip install "slime-vlm[scores]"'
    try:
        wordnet.ensure_loaded()
    except (LookupError, OSError):
        return "METEOR of whole texts needs NLTK's WordNet, which is not there: python -m nltk.downloader wordnet"
    return ""
