"""SliME as a model of lmms-eval 0.7: `lmms-eval --model slime_vlm --model_args pretrained=nano`.

Only lmms-eval imports this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.utils import Collator, eval_logger
from PIL import Image
from tqdm import tqdm

from slime_vlm.checkpoints.loading import load
from slime_vlm.evaluation.images import open_visual
from slime_vlm.evaluation.processes import join_processes
from slime_vlm.harnesses.generation import read_generation
from slime_vlm.inference.batching import BatchAnswer, BatchAnswerer
from slime_vlm.media import Clip


class SlimeVlm(lmms):
    """SliME behind the interface of lmms-eval: images first, then the text of the task.

    Args:
        pretrained: `nano`, a folder or a hub id.
        device: `cpu`, `cuda`, …. None takes a GPU if there is one, and one GPU per process under `accelerate launch`.
        dtype: Number type of the weights. None takes float32 on a CPU and bfloat16 on a GPU.
        batch_size: Questions per batch, or `auto`.
        max_batch_size: Accepted because lmms-eval passes it, and ignored: a batch that does not fit is halved.
        quantization: `int8` or `4bit`.
        **overrides: Fields of `SlimeConfig` to change, such as `max_tiles=16,max_local_tokens=576`.

    Raises:
        CheckpointError: The model does not exist.
        ConfigError: An override, the device or the number type is unknown.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = "nano",
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        quantization: str | None = None,
        **overrides: Any,
    ) -> None:
        super().__init__()
        processes = join_processes(device)
        model, processor = load(pretrained, processes.device, dtype, quantization=quantization, **overrides)
        # In lmms-eval, `auto` may be followed by a number, as in `auto:4`.
        rows = None if str(batch_size).startswith("auto") else int(batch_size)
        self._answerer = BatchAnswerer(model, processor, rows)
        self._rank, self._world_size = processes.rank, processes.count
        self._ignored: set[str] = set()

    @property
    def device(self) -> torch.device:
        """Device of the model. With several processes, lmms-eval gathers the number of requests on it."""
        return self._answerer.model.device

    @property
    def batch_size(self) -> int:
        """Questions per batch."""
        return self._answerer.batch_size

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer any number of requests, and return the answers in order. A batch has one kind of generation."""
        # A request is (text, settings, function from a record to its images, index, task, split).
        order = Collator([request.args for request in requests], lambda args: 0, lambda args: args[1], grouping=True)
        results: list[GenerationResult] = []
        with tqdm(total=len(requests), desc="slime_vlm", disable=self.rank != 0) as bar:
            for batch in order.get_batched(n=self.batch_size):
                results += self._answer(batch)
                bar.update(len(batch))
        return order.get_original(results)

    def _answer(self, batch: Sequence[tuple[Any, ...]]) -> list[GenerationResult]:
        texts = [args[0] for args in batch]
        images = [self._images(*args[2:]) for args in batch]
        generation = read_generation(batch[0][1])
        for name in set(generation.ignored) - self._ignored:
            eval_logger.warning(f"slime_vlm: the generation setting '{name}' is not supported and ignored")
        self._ignored.update(generation.ignored)
        answers = self._answerer.answer(texts, images, generation.max_new_tokens, **generation.options)
        return [GenerationResult(generation.cut(answer.text), _count(answer)) for answer in answers]

    def _images(
        self, find: Callable[[dict[str, Any]], Any], number: int, task: str, split: str
    ) -> list[Image.Image | Clip]:
        found = find(self.task_dict[task][split][number])
        if found is None:
            return []
        return [open_visual(image) for image in (found if isinstance(found, (list, tuple)) else [found])]

    def generate_until_multi_round(self, requests: list[Instance]) -> NoReturn:
        """Raise an error: not supported."""
        raise NotImplementedError("slime_vlm: tasks of several rounds are not supported; use tasks of one question")

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        """Raise an error: not supported."""
        raise NotImplementedError(
            "slime_vlm: tasks scored by log-likelihood are not supported; use their generative form (generate_until)"
        )


def _count(answer: BatchAnswer) -> TokenCounts:
    tokens = answer.tokens
    return TokenCounts(tokens["prompt"] + tokens["global"] + tokens["kept"], tokens["new"])
