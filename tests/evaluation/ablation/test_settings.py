"""Which settings exist, and which of them apply to a model."""

from __future__ import annotations

import pytest

from slime_vlm.errors import ConfigError
from slime_vlm.evaluation.ablation.settings import GROUPS, REFERENCE, SETTINGS, applicable, find_settings
from tests.conftest import tiny_config


def test_names_are_unique_and_every_group_compares() -> None:
    names = [setting.name for setting in SETTINGS]
    assert len(set(names)) == len(names)
    for group in GROUPS:
        assert sum(group in setting.groups for setting in SETTINGS) >= 2


def test_settings_by_group_and_by_name() -> None:
    assert find_settings("") == list(SETTINGS)
    found = [setting.name for setting in find_settings("gate, best 64")]
    assert found == [REFERENCE, "best 64", "mlp alone", "attention alone"]
    # The reference is always there, whoever asks.
    assert [setting.name for setting in find_settings("ocr")] == [REFERENCE, "ocr"]


def test_an_unknown_setting_has_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"'zebra' is neither.*; valid names: "):
        find_settings("zebra")
    with pytest.raises(ConfigError, match=r"'bugdet' is neither a setting nor a group.*did you mean 'budget'"):
        find_settings("top-p,bugdet")


def test_a_model_without_selector_has_nothing_to_select() -> None:
    kept, reasons = applicable(SETTINGS, tiny_config(selector="none"), rendered=True)
    names = {setting.name for setting in kept}
    assert {"slime", "all", "global only", "local only", "mlp alone", "resized to 336", "ocr"} <= names
    assert not any(name.startswith(("best", "top-p", "prompt", "random")) for name in names)
    reason = "the model does not select local tokens: no settings of top-p, share, budget and selector"
    assert reasons == [reason]


def test_everything_else_a_model_may_lack() -> None:
    kept, reasons = applicable(SETTINGS, tiny_config(projector_type="mlp", views="global"), rendered=False)
    names = {setting.name for setting in kept}
    assert not {"mlp alone", "attention alone", "local only"} & names
    assert not any(setting.rendered for setting in kept)
    # With the global view alone there is nothing to select from.
    assert not any(name.startswith(("best", "top-p", "prompt", "question", "random")) for name in names)
    assert len(reasons) == 4


@pytest.mark.parametrize(("text", "left_out"), [("question", "question"), ("prompt", "prompt"), ("all", None)])
def test_the_text_that_the_selector_uses_already_has_no_setting(text: str, left_out: str | None) -> None:
    kept, reasons = applicable(SETTINGS, tiny_config(selector_text=text), rendered=True)
    assert kept == [setting for setting in SETTINGS if setting.name != left_out]
    expected = [] if left_out is None else [f"the model's selector uses the {text} already: see `slime`"]
    assert reasons == expected
