"""What is said of a live face and of an attack, modality by modality: nine sentences each, in the style of FLIP.

FLIP (arXiv 2309.16649) describes a class by several plain statements and takes the mean of their features. These are
our own; the MMDG++ release has others of the same kind. Each is followed by `DEPLOYMENT` and the domain's
placeholders.
"""

from __future__ import annotations

from enum import StrEnum

from mmdg_model.scorer import Modality

#: Leads from the statement to the learnable tokens, which stand for the place where a camera works.
DEPLOYMENT = "inside deployment environment"

#: A word of one token that no sentence uses.
PLACEHOLDER = "x"


class FaceClass(StrEnum):
    """What a sentence claims."""

    SPOOF = "spoof"
    LIVE = "live"


#: `{image}` and `{camera}` are filled in for each modality.
_STATEMENTS: dict[FaceClass, tuple[str, ...]] = {
    FaceClass.LIVE: (
        "this {image} shows a live human face",
        "this {image} shows a genuine face",
        "this is a bonafide face in {image} modality",
        "this is not a spoof face in {image} modality",
        "a real person stands before the {camera} camera",
        "a photo of a live face captured by {camera} camera",
        "a photo of real skin captured by {camera} camera",
        "the face in this {image} is no presentation attack",
        "an authentic face without any mask or screen in {image} modality",
    ),
    FaceClass.SPOOF: (
        "this {image} shows a spoof face",
        "this {image} shows a fake face",
        "this is a presentation attack in {image} modality",
        "this is not a live face in {image} modality",
        "a printed face is held before the {camera} camera",
        "a photo of a spoof face captured by {camera} camera",
        "a photo of a mask captured by {camera} camera",
        "the face in this {image} is replayed on a screen",
        "a counterfeit face made of paper or silicone in {image} modality",
    ),
}

_WORDS: dict[Modality, dict[str, str]] = {
    Modality.RGB: {"image": "rgb image", "camera": "colour"},
    Modality.DEPTH: {"image": "depth map", "camera": "depth"},
    Modality.INFRARED: {"image": "infrared image", "camera": "infrared"},
}


def sentences(modality: Modality, face_class: FaceClass) -> tuple[str, ...]:
    """The nine statements, without placeholders."""
    return tuple(statement.format(**_WORDS[modality]) for statement in _STATEMENTS[face_class])


def template(sentence: str, prompt_tokens: int) -> str:
    """A statement with its ending: `... inside deployment environment x x x x x`."""
    return " ".join((sentence, DEPLOYMENT, *(PLACEHOLDER for _ in range(prompt_tokens))))
