"""Runs the native model on a case and names what comes out as the parity data do."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BatchFeature

from slime_vlm.checkpoints.published.weight_names import native_names
from slime_vlm.model.modeling_slime import SlimeModel
from slime_vlm.model.outputs import SlimeCausalLMOutput
from tests.parity.comparison import bare_name
from tests.parity.reference import ParityRoot

PUBLISHED_PLACEHOLDER = -200


@contextmanager
def recording(slime: SlimeModel) -> Iterator[dict[str, list[Any]]]:
    """Collect what the steps of the model return while it runs."""
    seen: dict[str, list[Any]] = {}
    removers = []

    def watch_method(name: str) -> None:
        method = getattr(slime, name)

        def wrapper(*args: Any) -> Any:
            result = method(*args)
            seen.setdefault(name, []).append(result)
            return result

        setattr(slime, name, wrapper)
        removers.append(lambda: delattr(slime, name))

    for name in ("encode_views", "adapt_global", "compress_tiles"):
        watch_method(name)

    def store_output(name: str) -> Any:
        return lambda _module, _args, output: seen.setdefault(name, []).append(output)

    def store_embeds(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        seen.setdefault("inputs_embeds", []).append(kwargs["inputs_embeds"])

    if slime.local_compressor is not None:
        removers.append(slime.local_compressor.register_forward_hook(store_output("local_compressor")).remove)
    removers.append(slime.language_model.register_forward_pre_hook(store_embeds, with_kwargs=True).remove)
    try:
        yield seen
    finally:
        for remove in removers:
            remove()


@contextmanager
def injected_noise(slime: SlimeModel, gate: Tensor | None, router: Tensor | None) -> Iterator[None]:
    """Replace the numbers that training draws: gate [I, N, 2] and router [I, L]."""
    hooks = []

    def inject(module: nn.Module | None, noise: Tensor | None) -> None:
        if module is not None and noise is not None:
            hook = lambda _module, args, kwargs: (args, {**kwargs, "noise": noise})  # noqa: E731
            hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    inject(slime.global_adapter, gate)
    inject(slime.selector, router)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def collapse(ids: Tensor, image_token_id: int) -> list[list[int]]:
    """Rows of token ids with one published placeholder for every run of ours."""
    rows = []
    for row in ids.tolist():
        out: list[int] = []
        for token in row:
            if token != image_token_id:
                out.append(token)
            elif not out or out[-1] != PUBLISHED_PLACEHOLDER:
                out.append(PUBLISHED_PLACEHOLDER)
        rows.append(out)
    return rows


def text_rows(inputs: BatchFeature, image_token_id: int, *, side: str, pad: int) -> dict[str, Tensor]:
    """Token ids, mask and labels before expansion, padded again as the published collator does."""
    names = {"input_ids": pad, "labels": -100, "attention_mask": 0}
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    for index, ids in enumerate(inputs["input_ids"]):
        real = inputs["attention_mask"][index] != 0
        ids = ids[real]
        # Of a run of placeholders only the first token stays.
        image = ids == image_token_id
        keep = ~image | (image & ~torch.cat([torch.zeros(1, dtype=torch.bool), image[:-1]]))
        rows["input_ids"].append(ids.masked_fill(image, PUBLISHED_PLACEHOLDER)[keep])
        rows["attention_mask"].append(torch.ones(int(keep.sum()), dtype=torch.long))
        if "labels" in inputs:
            rows["labels"].append(inputs["labels"][index][real][keep])
    return {
        name: torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=names[name], padding_side=side)
        for name, values in rows.items()
        if values
    }


def step_size(name: str) -> int:
    """K of a name such as `vision_s303` or `local_merged_rows16`."""
    match = re.search(r"(\d+)$", name)
    assert match
    return int(match[1])


def sampled(name: str, value: Tensor) -> Tensor:
    """Every K-th element, or every K-th row, as the name says."""
    if "local_merged_rows" in name:
        return value[:: step_size(name)]
    return value.flatten()[:: step_size(name)]


class CaseRun:
    """One case: inputs, the forward pass and everything it is compared by.

    Attributes:
        recorded: Recorded tensors, with the scalars of the case's index as further tensors.
        computed: The same names, computed here.
    """

    def __init__(self, root: ParityRoot, name: str) -> None:
        self.root = root
        self.case = root.cases[name]
        self.recorded = root.tensors(name)
        self.computed: dict[str, Tensor] = {}
        # All rows of what is recorded for some: "row0.embeds_rows" -> [L, D].
        self.whole: dict[str, Tensor] = {}
        self.model, self.processor = root.build(name)
        self.config = self.model.config
        if self.case["kind"] == "training":
            self._train()
        elif "rows" in self.case:
            self._batch()
        else:
            self._single()
        self._scalars()

    @torch.no_grad()
    def computed_with(self, name: str, changed: Tensor) -> Mapping[str, Tensor]:
        """What is computed when an input of the run, see `comparison.is_input`, is another one."""
        if name.endswith("_index"):
            rows = name.removesuffix("_index")
            return self.computed | {rows: self.whole[rows][changed.long()]}
        other = copy.copy(self)
        other.recorded, other.computed = self.recorded | {name: changed}, {}
        other._rows(*other._noisy_forward())
        assert any(bare_name(key) == "router_sim" for key in other.computed)
        return self.computed | other.computed

    # Inputs ------------------------------------------------------------------------------------------------------

    def _inputs(self, prompts: list[str], images: list[str], side: str = "right") -> BatchFeature:
        inputs = self.processor(
            text=prompts,
            images=[self.root.image(name) for name in images] or None,
            padding_side=side,
        )
        if self.case.get("single_view_4d_input"):
            inputs["pixel_values"] = inputs["pixel_values"][:1]
        return inputs

    def _prompt(self, row: dict[str, Any]) -> str:
        question = row["question"] if row["image"] is None else f"<image>\n{row['question']}"
        prompt = self.processor.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
        assert isinstance(prompt, str)
        return prompt

    # Kinds of cases ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _single(self) -> None:
        inputs = self._inputs([self.case["prompt"]], self.case["images"])
        plain = text_rows(inputs, self.config.image_token_id, side="right", pad=0)
        self.computed["input_ids"] = plain["input_ids"][0]
        with recording(self.model.model) as seen:
            outputs = self.model(**inputs)
        self._vision(inputs, outputs, seen)
        self._row("", 0, outputs, seen["inputs_embeds"][0])
        # Place of the image among the merged tokens.
        places = outputs.token_index[0]
        image = (inputs["input_ids"][0] == self.config.image_token_id)[places].nonzero()[:, 0].tolist()
        self.span = (image[0], image[-1] + 1) if image else (0, 0)
        self._generate(inputs)

    @torch.no_grad()
    def _batch(self) -> None:
        rows, side = self.case["rows"], self.case["padding_side"]
        images = [row["image"] for row in rows if row["image"]]
        inputs = self._inputs([self._prompt(row) for row in rows], images, side)
        pad = self.processor.tokenizer.pad_token_id
        plain = text_rows(inputs, self.config.image_token_id, side=side, pad=pad)
        self.computed.update(input_ids=plain["input_ids"], attention_mask=plain["attention_mask"])
        with recording(self.model.model) as seen:
            outputs = self.model(**inputs)
            if side == "left":
                # The published plain forward pass counts positions from the first padding slot.
                length = outputs.attention_mask.shape[1]
                outputs = self.model(**inputs, position_ids=torch.arange(length).expand(len(rows), -1))
        self.computed["attention_mask_expanded_lengths"] = outputs.attention_mask.sum(dim=1)
        self._rows(outputs, seen["inputs_embeds"][-1])
        if "generated" in self.recorded:
            self._generate(inputs)

    def _train(self) -> None:
        rows, case = self.case["rows"], self.case
        names = [row["image"] for row in rows if row["image"]]
        inputs = self.processor.encode_conversations(
            [row["turns"] for row in rows],
            images=[self.root.image(name) for name in names],
            label_rule="published",
            style=case["conversation"],
        )
        pad = self.processor.tokenizer.pad_token_id
        self.computed.update(text_rows(inputs, self.config.image_token_id, side="right", pad=pad))
        flagged = self.root.json("training/trainable_as_flagged.json")[case["checkpoint"]][case["stage"]]
        trainable = {name for published in flagged["requires_grad"] for name in native_names(published)}
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in trainable)
        self.model.train(case["module_mode"] == "train")
        self.inputs = inputs
        outputs, embeds = self._noisy_forward()
        outputs.loss.backward()
        self._rows(outputs, embeds)
        self.computed["loss"] = outputs.loss.detach()
        self.computed["expanded_labels"] = outputs.labels
        self.computed["expanded_lengths"] = outputs.attention_mask.sum(dim=1)
        views = [1] * len(rows)
        grids = iter(inputs["image_grids"].tolist())
        for index, row in enumerate(rows):
            if row["image"]:
                tile_rows, tile_cols = next(grids)
                views[index] = 1 + tile_rows * tile_cols
            else:
                self._blank_view_gates(f"row{index}.gates")
        # The published collator pads views with blank ones; ours has none, so their mask follows from the grids.
        width = case["images_tensor_shape"][1]
        self.computed["image_nums"] = torch.tensor(views)
        self.computed["images_mask"] = (torch.arange(width) < torch.tensor(views)[:, None]).long()
        self._gradients(flagged["requires_grad"])

    def _noisy_forward(self) -> tuple[SlimeCausalLMOutput, Tensor]:
        """Outputs of a training case with the noise that is recorded, and the input of its language model."""
        gate = router = None
        if self.case["noise"] == "recorded":
            rows = range(len(self.case["rows"]))
            gate = torch.stack([self.recorded[f"row{i}.noise_gate"] for i in rows])
            router = torch.nn.utils.rnn.pad_sequence(
                [self.recorded[f"row{i}.noise_router"] for i in rows], batch_first=True
            )
        elif self.case["module_mode"] == "train":
            gate = router = torch.zeros(())
        with recording(self.model.model) as seen, injected_noise(self.model.model, gate, router):
            outputs = self.model(**self.inputs)
        return outputs, seen["inputs_embeds"][0]

    # What is compared --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _blank_view_gates(self, name: str) -> None:
        """The published code gives a row of text alone one black view, whose gates are recorded."""
        if name in self.recorded:
            slime = self.model.model
            features = slime.encode_views(torch.zeros(1, 3, self.config.view_size, self.config.view_size))
            self.computed[name] = slime.global_adapter.adapter_weights(features)[0]

    def _vision(self, inputs: BatchFeature, outputs: SlimeCausalLMOutput, seen: dict[str, list[Any]]) -> None:
        if "pixel_values" not in inputs:
            return
        slime, pixels, values = self.model.model, inputs["pixel_values"], {}
        self.computed["pixel_values_mean"] = pixels.mean(dim=(2, 3))
        self.computed["pixel_values_std"] = pixels.std(dim=(2, 3))
        features = seen["encode_views"][0]
        values["pixel_values"] = pixels
        values["vision"] = features
        if "expert_attn_shape" in self.case:
            values["expert_attn"] = slime.global_adapter.query_attention(features[: self.case["expert_attn_shape"][0]])
        if "local_compressor" in seen:
            values["post_qformer"] = seen["local_compressor"][0]
        calls = [tokens for tokens, _gates in seen.get("adapt_global", [])]
        if self.config.local_compression:
            calls += seen.get("compress_tiles", [])
        else:
            # Without a compressor the gate acts on tiles too, and its weights for all views are recorded.
            calls = [torch.cat(calls)]
            self.computed["gates"] = torch.cat([gates.flatten(0, 1) for _tokens, gates in seen["adapt_global"]])
        values |= {f"projector_call{index}": call for index, call in enumerate(calls)}
        for name in self.recorded:
            match = re.fullmatch(r"(.+)_s\d+", name)
            if match and match[1] in values:
                self.computed[name] = sampled(name, values[match[1]])

    def _rows(self, outputs: SlimeCausalLMOutput, embeds: Tensor) -> None:
        image = 0
        for index, row in enumerate(self.case["rows"]):
            self._row(f"row{index}.", index, outputs, embeds, image if row["image"] else None)
            image += bool(row["image"])

    @torch.no_grad()
    def _row(self, prefix: str, row: int, outputs: SlimeCausalLMOutput, embeds: Tensor, image: int | None = 0) -> None:
        real = outputs.attention_mask[row] != 0
        values: dict[str, Tensor] = {}
        embeds, logits = embeds[row][real], outputs.logits[row][real]
        values["embeds_rowsum"] = embeds.sum(dim=-1)
        values["embeds_rowabssum"] = embeds.abs().sum(dim=-1)
        for name, tensor in (("embeds_rows", embeds), ("logits_rows", logits)):
            if prefix + name in self.recorded:
                self.whole[prefix + name] = tensor.detach()
                values[name] = tensor[self.recorded[f"{prefix}{name}_index"].long()]
        best = logits.topk(2, dim=-1)
        values["logits_max"] = best.values[:, 0]
        values["logits_argmax"] = best.indices[:, 0]
        values["logits_gap"] = best.values[:, 0] - best.values[:, 1]
        values["logits_logsumexp"] = logits.logsumexp(dim=-1)
        nothing = logits.new_empty(0)
        local = nothing.reshape(0, self.config.text_config.hidden_size)
        scores = probs = nothing
        kept = torch.empty(0, dtype=torch.bool)
        if image is not None and outputs.vision_tokens is not None:
            if outputs.adapter_weights is not None:
                values["gates"] = outputs.adapter_weights[image]
            if outputs.vision_tokens[image].local_tokens is not None:
                local = outputs.vision_tokens[image].local_tokens
            if outputs.selection_scores is not None:
                scores, probs = outputs.selection_scores[image], outputs.selection_probs[image]
                kept = outputs.kept_local_tokens[image]
        values.update(router_sim=scores, router_probs=probs, selected_index=kept.nonzero()[:, 0])
        values["local_merged_rowsum"] = local.sum(dim=-1)
        for name in self.recorded:
            if name.startswith(prefix) and re.fullmatch(r"local_merged_rows\d+", name[len(prefix) :]):
                self.computed[name] = sampled(name, local)
        for name, value in values.items():
            self.computed.setdefault(prefix + name, value)

    def _generate(self, inputs: BatchFeature) -> None:
        found = self.model.generate(
            **inputs,
            max_new_tokens=16,
            do_sample=False,
            eos_token_id=None,
            output_scores=True,
            return_dict_in_generate=True,
        )
        best = torch.stack(found.scores, dim=1).topk(2, dim=-1).values
        new, gap = found.sequences[:, -16:], best[..., 0] - best[..., 1]
        single = self.recorded["generated"].ndim == 1
        self.computed["generated"] = new[0] if single else new
        self.computed["generated_gap"] = gap[0] if single else gap

    def _gradients(self, flagged: list[str]) -> None:
        parameters = dict(self.model.named_parameters())
        silent = []
        for published in flagged:
            parts = [parameters[name].grad for name in native_names(published) if name in parameters]
            if not parts or any(part is None for part in parts):
                silent.append(published)
                continue
            gradient = torch.cat([part for part in parts if part is not None])
            self.computed[f"grad_norm.{published}"] = gradient.norm()
            self.computed[f"grad.{published}"] = gradient.flatten()[:: max(1, gradient.numel() // 32)][:33]
        self.silent_parameters = silent

    def _scalars(self) -> None:
        """Put the scalars of the index beside the tensors, so that they are compared and perturbed alike."""
        case = self.case
        if case["kind"] == "training":
            self.recorded["loss"] = torch.tensor(case["loss"])
            for name, norm in case.get("grad_norms", {}).items():
                self.recorded[f"grad_norm.{name}"] = torch.tensor(norm)
        routers = case.get("router") or []
        for index, router in enumerate(routers if isinstance(routers, list) else [routers]):
            prefix = f"row{index}." if isinstance(routers, list) else ""
            self.recorded[f"{prefix}router_kept"] = torch.tensor([router["kept"], router["total"]])
            kept = self.computed[f"{prefix}selected_index"].numel()
            self.computed[f"{prefix}router_kept"] = torch.tensor([kept, self.computed[f"{prefix}router_sim"].numel()])
        if "length" in case:
            lengths = [v.numel() for k, v in self.computed.items() if k.endswith("embeds_rowsum")]
            self._scalar("length", case["length"], max(lengths))
        if "grid_wh_pixels" in case:
            width, height = case["grid_wh_pixels"]
            grid = self.processor.image_processor.grid(*reversed(case["image_sizes"][0]))
            self._scalar("grid", (height, width, case["tiles"]), (*grid.canvas_size, grid.num_views))
            first, end = case["image_span"]
            # The recorded span is the length less the text, which is not where the image lies in a row that was cut.
            if case["length"] == self.config.max_sequence_length:
                return
            self._scalar("image_span", (first, end, case["n_image_tokens"]), (*self.span, self.span[1] - self.span[0]))

    def _scalar(self, name: str, recorded: Any, computed: Any) -> None:
        self.recorded[name] = torch.tensor(recorded).reshape(-1)
        self.computed[name] = torch.tensor(computed).reshape(-1)
