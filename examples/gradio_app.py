"""Ask questions about an image on a page of Gradio, and see where the model looked.

    pip install gradio
    python examples/gradio_app.py --model nano

Gradio 6.31 wants a Pillow below 13, which slime-vlm takes as well. An image is encoded once, and every further question
about it reuses its tokens.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from PIL import Image

import slime_vlm

Seen = tuple[str, Image.Image, Any]
"""A file, its image, and the image as the model has encoded it."""

Asking = Callable[[str | None, str, float, Seen | None], tuple[str, Image.Image, Seen]]


def asking_of(model: Any, processor: Any) -> Asking:
    """Return a function that answers a question about a file, and draws where the model looked."""

    def answer(path: str | None, question: str, length: float, seen: Seen | None) -> tuple[str, Image.Image, Seen]:
        if not path or not question.strip():
            raise slime_vlm.InputError("expected a file and a question")
        if seen is None or seen[0] != path:
            image = slime_vlm.open_image(path)
            seen = (path, image, slime_vlm.encode(model, processor, image))
        found = seen[2].ask(question, max_new_tokens=int(length))
        return found.text, found.draw(seen[1]), seen

    return answer


def build_app(ask: Asking) -> Any:
    """Build the page: a file and a question on the left, the answer and the drawing on the right."""
    import gradio as gr

    def answer(path: str | None, question: str, length: float, seen: Seen | None) -> tuple[str, Image.Image, Seen]:
        try:
            return ask(path, question, length, seen)
        except slime_vlm.SlimeError as error:
            raise gr.Error(str(error), print_exception=False) from None

    with gr.Blocks(title="SliME") as app:
        seen = gr.State(None)
        with gr.Row():
            with gr.Column():
                file = gr.File(label="Image, scan or document", type="filepath")
                question = gr.Textbox(label="Question", placeholder="What is the amount due?")
                length = gr.Slider(1, 256, 64, step=1, label="Longest answer in tokens")
                button = gr.Button("Ask", variant="primary")
            with gr.Column():
                text = gr.Textbox(label="Answer", interactive=False)
                drawing = gr.Image(label="Tiles, and the local tokens that were kept", interactive=False)
        # One at a time: a model on one device gains nothing from two.
        for event in (button.click, question.submit):
            event(answer, [file, question, length, seen], [text, drawing, seen], concurrency_limit=1)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano", help="`nano`, a folder or a hub id")
    parser.add_argument("--port", type=int, default=7860)
    options = parser.parse_args()
    build_app(asking_of(*slime_vlm.load(options.model))).launch(server_port=options.port)
