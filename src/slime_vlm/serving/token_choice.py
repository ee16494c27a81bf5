"""Which tokens an answer may have, and which end it: what `generate` takes from the generation config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from slime_vlm.errors import ConfigError
from slime_vlm.model.character_tokens import CharacterTokens

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration


class TokenChoice:
    """Tokens that are never chosen, tokens that are favoured, and the ends of answers.

    Args:
        model: The model, with its generation config: `eos_token_id`, `suppress_tokens` and `sequence_bias`.

    Raises:
        ConfigError: `sequence_bias` has sequences of several tokens.

    Attributes:
        ends: Ids of the tokens that end an answer.
    """

    def __init__(self, model: SlimeForConditionalGeneration) -> None:
        config, given = model.config, model.generation_config
        ends = given.eos_token_id
        self.ends = set(ends if isinstance(ends, list) else [] if ends is None else [ends])
        # The image placeholder is not text.
        never = {config.image_token_id, *(given.suppress_tokens or [])}
        if config.characters is not None:
            # These begin a text, a question or an answer. `AnswerState` counts on an answer that goes on.
            tokens = CharacterTokens(len(config.characters))
            never |= {0, tokens.begin, tokens.user, tokens.assistant}
            self.ends.add(tokens.end)
        bias = torch.zeros(config.text_config.vocab_size)
        for token, value in _biases(given.sequence_bias).items():
            bias[token] += value
        bias[[token for token in never if token < len(bias)]] = -torch.inf
        self._bias = bias

    def allowed(self, logits: Tensor) -> Tensor:
        """Return logits [rows, vocabulary] after bias, with -inf for tokens that are never chosen."""
        self._bias = self._bias.to(logits.device)
        return logits + self._bias


def _biases(given: Any) -> dict[int, float]:
    """Return the bias of every token, from a mapping or a list of pairs as transformers has them."""
    pairs = given.items() if isinstance(given, dict) else given or []
    found: dict[int, float] = {}
    for sequence, value in pairs:
        if len(sequence) != 1:
            raise ConfigError(
                f"generation_config.json has a sequence_bias for the {len(sequence)} tokens {list(sequence)}, and the "
                "server knows biases of single tokens; remove it there, or use slime ask"
            )
        found[int(sequence[0])] = float(value)
    return found
