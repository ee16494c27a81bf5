"""The public API: `slime_vlm` lists these names and no others, and imports what is behind one on first use."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import slime_vlm
from slime_vlm import errors

FUNCTIONS = ["ask", "convert", "encode", "load", "open_image"]
CLASSES = ["Answer", "Conversation"]
ERRORS = ["CheckpointError", "ConfigError", "DataError", "InputError", "MediaError", "SlimeError"]


def test_dir_shows_the_public_names_alone():
    assert dir(slime_vlm) == sorted([*FUNCTIONS, *CLASSES, *ERRORS])
    assert sorted(slime_vlm.__all__) == dir(slime_vlm)


def test_every_name_is_what_it_says():
    assert all(inspect.isfunction(getattr(slime_vlm, name)) for name in FUNCTIONS)
    assert all(inspect.isclass(getattr(slime_vlm, name)) for name in CLASSES)
    assert all(getattr(slime_vlm, name) is getattr(errors, name) for name in ERRORS)


def test_every_error_of_the_package_is_public():
    found = [name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)]
    assert sorted(found) == ERRORS


@pytest.mark.parametrize(
    "name",
    ["SlimeConfig", "SlimeForConditionalGeneration", "SlimeImageProcessor", "SlimeModel", "SlimeProcessor"],
)
def test_the_model_classes_can_be_imported_but_are_not_listed(name):
    assert getattr(slime_vlm, name).__name__ == name
    assert name not in dir(slime_vlm)


def test_an_unknown_name_is_an_error():
    with pytest.raises(AttributeError, match="has no attribute 'answer'"):
        _ = slime_vlm.answer


def test_a_name_is_imported_on_first_use():
    program = (
        "import sys, slime_vlm\n"
        "print(sorted({'torch', 'transformers', 'PIL', 'numpy'} & set(sys.modules)))\n"
        "print(slime_vlm.ConfigError.__name__, 'torch' in sys.modules)\n"
        "print(slime_vlm.load.__name__, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]", "ConfigError False", "load True"], done.stderr
