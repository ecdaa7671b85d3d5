"""CLIP's byte pair encoding, from the `instant-clip-tokenizer` wheel, which carries the vocabulary. Training only."""

from __future__ import annotations

try:
    from instant_clip_tokenizer import Tokenizer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("domain prompts need CLIP's tokenizer: pip install 'mmdg-live[plusplus]'",
                              name="instant_clip_tokenizer") from error


class ClipTokenizer:
    """Text to CLIP's token ids."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer()
        self.start_of_text: int = self._tokenizer.start_of_text()
        self.end_of_text: int = self._tokenizer.end_of_text()

    def encode(self, text: str) -> list[int]:
        """Ids in 0..49405, without start and end."""
        ids: list[int] = self._tokenizer.encode(text)
        return ids
