"""`import slime_vlm` and nothing else makes transformers know the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from transformers import pipeline

from tests.tiny_reader import save_tiny_reader


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_reader(tmp_path_factory.mktemp("checkpoint"))


# Importing torch takes seconds, so every case runs in a child of one process that has done so. transformers and
# slime_vlm are imported by the cases alone.
PROGRAM = """
import contextlib, io, json, os, sys
import numpy, torch, torch._dynamo
programs, arguments = json.loads(sys.argv[1]), sys.argv[2:]
found = []
for program in programs:
    assert not {"transformers", "slime_vlm"} & set(sys.modules)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        sys.argv = ["-c", *arguments]
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                exec(program, {"__name__": "__main__"})
        except BaseException as error:
            said.write(f"{type(error).__name__}: {error}")
        os.write(writer, json.dumps(said.getvalue()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        found.append(json.load(file))
    os.waitpid(child, 0)
print(json.dumps(found))
"""

IMPORTS = ("import slime_vlm, transformers", "import transformers, slime_vlm")
CLASSES_FOUND = (
    ", sys\n"
    "for name in ('Config', 'ImageProcessor', 'Model', 'ModelForImageTextToText', 'Processor'):\n"
    "    auto = getattr(transformers, 'Auto' + name)\n"
    "    print(type(auto.from_pretrained(sys.argv[1])).__name__)\n"
)
# Registration needs the module whose import of transformers starts it.
MODULES = (("model.configuration_slime", "SlimeConfig"), ("processing.processing_slime", "SlimeProcessor"))
REGISTRATION = (
    "from slime_vlm.{module} import {name}\n"
    "from transformers.models.auto.processing_auto import PROCESSOR_MAPPING\n"
    "from transformers.models.auto.configuration_auto import CONFIG_MAPPING\n"
    "print(PROCESSOR_MAPPING[CONFIG_MAPPING['slime']].__name__)\n"
    # The hook leaves neither itself nor its loader behind.
    "import slime_vlm.errors, sys, transformers\n"
    "for module in (slime_vlm.errors, transformers, sys.modules[{name}.__module__]):\n"
    "    print(type(module.__spec__.loader).__name__)\n"
    "print(*[finder for finder in sys.meta_path if type(finder).__module__.startswith('slime_vlm')])\n"
)


@pytest.fixture(scope="module")
def printed(folder: Path) -> dict[str, list[str]]:
    """Words that each program prints, by its imports or its module."""
    programs = {imports: imports + CLASSES_FOUND for imports in IMPORTS}
    programs |= {module: REGISTRATION.format(module=module, name=name) for module, name in MODULES}
    command = [sys.executable, "-c", PROGRAM, json.dumps(list(programs.values())), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    return {name: words.split() for name, words in zip(programs, said, strict=True)}


@pytest.mark.parametrize("imports", IMPORTS)
def test_one_import_is_enough(printed: dict[str, list[str]], imports: str) -> None:
    assert printed[imports] == [
        "SlimeConfig",
        "SlimeImageProcessor",
        "SlimeModel",
        "SlimeForConditionalGeneration",
        "SlimeProcessor",
    ]


@pytest.mark.parametrize("module", [module for module, _ in MODULES])
def test_importing_one_module_registers_all_classes(printed: dict[str, list[str]], module: str) -> None:
    assert printed[module] == ["SlimeProcessor", *["SourceFileLoader"] * 3]


def test_the_name_of_the_program_does_not_matter(tmp_path: Path) -> None:
    program = tmp_path / "slime.py"
    program.write_text(
        "import slime_vlm, transformers\nprint(type(transformers.AutoConfig.for_model('slime')).__name__)\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert done.stdout == "SlimeConfig\n", done.stderr


def test_pipeline_answers(folder: Path) -> None:
    ask = pipeline("image-text-to-text", model=str(folder))
    images = [Image.effect_noise(size, 90).convert("RGB") for size in ((90, 150), (40, 30))]
    chats = [
        [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]}]
        for image in images
    ]
    options = {"max_new_tokens": 5, "do_sample": False}
    together = ask(chats, batch_size=2, generate_kwargs=options, return_full_text=False)
    for chat, answer in zip(chats, together, strict=True):
        alone = ask(chat, generate_kwargs=options, return_full_text=False)
        assert alone[0]["generated_text"] == answer[0]["generated_text"]
    plain = ask(images=images[0], text="<image>\nWhat?", generate_kwargs=options, return_full_text=False)
    assert isinstance(plain[0]["generated_text"], str)
