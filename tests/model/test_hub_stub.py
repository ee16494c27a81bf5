"""Saved folders load by transformers' Auto classes in a process that never imports slime_vlm by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import slime_vlm
from slime_vlm.checkpoints.shipped import SHIPPED
from slime_vlm.model import hub_stub
from slime_vlm.model.hub_stub import STUB, STUB_FILE
from tests.saved_folder import assert_auto_classes_find_it, card_of
from tests.tiny_reader import save_tiny_reader

CLASSES = {
    "AutoConfig": "SlimeConfig",
    "AutoImageProcessor": "SlimeImageProcessor",
    "AutoModel": "SlimeModel",
    "AutoModelForImageTextToText": "SlimeForConditionalGeneration",
    "AutoProcessor": "SlimeProcessor",
}
INVOICE = Path(__file__).parents[2] / "examples" / "invoice.png"

# Importing transformers takes seconds, so every case runs in a child of one process that has done so.
PROGRAM = """
import json, os, sys
import peft, transformers
import transformers.models.llama.modeling_llama, transformers.models.resnet.modeling_resnet, transformers.generation
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationMixin, pipeline
folder, image = sys.argv[1:3]
found = {}

def case(name, function):
    assert "slime_vlm" not in sys.modules
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            answer = function()
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        found[name] = json.load(file)
    os.waitpid(child, 0)

def name_of(auto, **options):
    return type(getattr(transformers, auto).from_pretrained(folder, **options)).__name__

def without_package(auto):
    sys.modules["slime_vlm"] = None
    return name_of(auto, trust_remote_code=True)

def imported_later(auto):
    import slime_vlm
    return name_of(auto)

def imported_and_trusted(auto):
    import slime_vlm
    return name_of(auto, trust_remote_code=True)

def answer():
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True, dtype="float32")
    processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    content = [{"type": "image", "path": image}, {"type": "text", "text": "What is the amount due?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    written = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    return processor.decode(written[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)

def piped():
    ask = transformers.pipeline("image-text-to-text", model=folder, trust_remote_code=True, dtype="float32")
    content = [{"type": "image", "path": image}, {"type": "text", "text": "What is the amount due?"}]
    return ask(text=[{"role": "user", "content": content}], return_full_text=False)[0]["generated_text"].strip()

def saved_again():
    processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    target = os.path.join(os.environ["HF_HOME"], "again")
    processor.save_pretrained(target)
    config.save_pretrained(target)
    return sorted(name for name in os.listdir(target) if name.endswith(".py"))

classes = sys.argv[3].split(",")
for auto in classes:
    case(f"trusted {auto}", lambda: name_of(auto, trust_remote_code=True))
    case(f"not trusted {auto}", lambda: name_of(auto))
    case(f"imported later {auto}", lambda: imported_later(auto))
    case(f"without the package {auto}", lambda: without_package(auto))
case("imported and trusted AutoProcessor", lambda: imported_and_trusted("AutoProcessor"))
case("tokenizer", lambda: name_of("AutoTokenizer"))
case("answer", answer)
case("pipeline", piped)
case("saved again", saved_again)
# Behind a question of transformers on the same line.
print()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What every case of the program gives for the shipped checkpoint."""
    environment = {**os.environ, "HF_HOME": str(tmp_path_factory.mktemp("hub"))}
    arguments = [SHIPPED["nano"], INVOICE, ",".join(CLASSES)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("auto", CLASSES)
def test_every_auto_class_finds_its_class(found: dict[str, object], auto: str) -> None:
    assert found[f"trusted {auto}"] == CLASSES[auto]
    assert found[f"imported later {auto}"] == CLASSES[auto]
    # AutoProcessor used to return a bare tokenizer here.
    assert "trust_remote_code=True" in str(found[f"not trusted {auto}"])
    message = "ImportError: this model needs the package slime-vlm, which is not installed: pip install slime-vlm"
    assert found[f"without the package {auto}"] == message


def test_nano_answers_through_the_auto_classes(found: dict[str, object]) -> None:
    assert found["answer"] == found["pipeline"] == "$87.84"
    assert found["imported and trusted AutoProcessor"] == "SlimeProcessor"
    assert found["tokenizer"] not in (None, "SlimeProcessor")


def test_no_source_is_copied_into_a_folder(found: dict[str, object]) -> None:
    assert found["saved again"] == [STUB_FILE]


def test_the_stub_names_classes_of_the_package() -> None:
    space: dict[str, object] = {}
    exec(STUB, space)
    assert set(space["__all__"]) == set(CLASSES.values())  # type: ignore[call-overload]
    assert all(space[name] is getattr(slime_vlm, name) for name in CLASSES.values())
    maps = (hub_stub.CONFIG_AUTO_MAP, hub_stub.PROCESSOR_AUTO_MAP, hub_stub.IMAGE_PROCESSOR_AUTO_MAP)
    for auto_map in maps:
        for auto, reference in auto_map.items():
            assert reference == f"{Path(STUB_FILE).stem}.{CLASSES[auto]}"


def test_a_saved_folder_is_like_the_shipped_one(tmp_path: Path) -> None:
    folder = save_tiny_reader(tmp_path / "model")
    assert_auto_classes_find_it(folder)
    assert_auto_classes_find_it(SHIPPED["nano"])
    assert (
        card_of(SHIPPED["nano"])[0].items() >= {"license": "apache-2.0", "pipeline_tag": "image-text-to-text"}.items()
    )


def test_a_tokenizer_that_is_saved_alone_names_no_stub(tmp_path: Path) -> None:
    processor = slime_vlm.SlimeProcessor.from_pretrained(SHIPPED["nano"])
    processor.tokenizer.save_pretrained(tmp_path)
    assert "auto_map" not in json.loads((tmp_path / "tokenizer_config.json").read_text())
