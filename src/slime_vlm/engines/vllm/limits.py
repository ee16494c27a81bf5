"""What the vLLM plug-in serves: models whose number of image tokens is known before the question. Needs no vLLM."""

from __future__ import annotations

from slime_vlm.errors import ConfigError, InputError
from slime_vlm.model.configuration_slime import SlimeConfig


def check_servable(config: SlimeConfig) -> None:
    """Refuse models that vLLM cannot serve.

    Raises:
        ConfigError: The model is one of these.
    """
    config.check()
    if config.keep_position_ids or config.characters is not None or config.copy_output:
        fields = {
            "keep_position_ids": config.keep_position_ids,
            "characters": config.characters is not None,
            "copy_output": config.copy_output,
        }
        found = ", ".join(name for name, is_set in fields.items() if is_set)
        raise ConfigError(
            f"the model has {found} (as nano and pages do), which vLLM cannot serve: positions and outputs would "
            "depend on the selection; use `slime serve`"
        )
    if config.selects_tokens and config.max_local_tokens is None and config.selector_top_p < 1.0:
        raise ConfigError(
            f"the model keeps local tokens by selector_top_p {config.selector_top_p}, and vLLM has to know their "
            "number beforehand: set a budget, --hf-overrides '{\"max_local_tokens\": 256}'"
        )

    if config.max_sequence_length is not None:
        raise ConfigError(
            f"the model cuts rows at max_sequence_length {config.max_sequence_length}, which vLLM cannot do: lift the "
            "limit, --hf-overrides '{\"max_sequence_length\": null}', and set vLLM's --max-model-len"
        )


def budget_of_request(config: SlimeConfig, requested: object) -> int | None:
    """Return the budget of local tokens of a request: its own if it has one, else the config's.

    Args:
        config: Config of the model.
        requested: `max_local_tokens` of the request, or None.

    Raises:
        InputError: The requested budget is no positive number, or more than the config's.
    """
    limit = config.max_local_tokens
    if requested is None:
        return limit
    if isinstance(requested, bool) or not isinstance(requested, int) or requested < 1:
        raise InputError(f"max_local_tokens is {requested!r:.80}, expected a whole number of at least 1")
    if not config.selects_tokens:
        raise InputError(
            f"max_local_tokens is {requested}, but this model has no selector to choose them; leave it out"
        )
    if limit is not None and requested > limit:
        raise InputError(f"max_local_tokens is {requested}, expected at most {limit}, the budget of the server")
    return requested
