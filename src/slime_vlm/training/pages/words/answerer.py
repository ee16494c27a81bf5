"""The parts of SliME that answer from named characters: tokens, words, linker, language model, copy output."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from slime_vlm.model.answer_finder import AnswerFinder, FinderCells
from slime_vlm.model.copy_output import CopyOutput
from slime_vlm.model.open_vocabulary import OpenVocabulary
from slime_vlm.model.query_attention import sincos_positions
from slime_vlm.model.visual_vocabulary import VisualVocabulary
from slime_vlm.training.pages.character_cells import CHARACTERS, NUM_CHARACTER_IDS
from slime_vlm.training.pages.losses import CopyingHead
from slime_vlm.training.pages.packed_questions import PackedImage, merge_packed
from slime_vlm.training.pages.words.batch import NUM_TOKENS, WordBatch

_ENTRY_STD = 0.06


@dataclass(frozen=True)
class AnswererSettings:
    """Sizes.

    Attributes:
        dim: Width D of the language model.
        layers: Its layers.
        heads: Its heads.
        word_dim: Width W of words.
        buckets: Rows of the table of n-grams.
        slots: Characters that a token can name.
        copies: Whether the output may copy from tokens.
        guided: Whether every token of an answer is told what is asked and how much has been said, not the first alone.
            Then decoding has to keep both beside the cache.
        finds: Whether an answer finder tells the copy output where answers begin.
    """

    dim: int = 256
    layers: int = 4
    heads: int = 4
    word_dim: int = 128
    buckets: int = 16384
    slots: int = 8
    copies: bool = True
    guided: bool = True
    finds: bool = True


@dataclass
class PageLook:
    """What is known of pages before the language model runs. N is R * C.

    Attributes:
        tokens: [B, N, D] tokens for the language model.
        linked: [B, N, W] unit vectors of linked words.
        words: [1 + number of words, W] words of the questions, zeros before them.
        question: [B, Q, W] vectors of the questions.
        cosines: [B, Q, N] similarity of every token to every question.
        own_cosines: [B, Q, N] the same of the words that a token touches alone.
        shown: bool [B, N] cells that show more than spaces.
        contexts: [B, N, W] what the linker knows of cells.
        own: [B, N, W] unit vectors of the words that a token touches.
        asked: [B, Q, S, W] words of the questions, see `AnswerFinder`.
        beginnings: [B, Q, N + 1] what the answer finder says of the cells that are read. None without one.
        endings: [B, Q, N] the same of where answers end.
    """

    tokens: Tensor
    linked: Tensor
    words: Tensor
    question: Tensor
    cosines: Tensor
    own_cosines: Tensor
    shown: Tensor
    contexts: Tensor
    own: Tensor
    asked: Tensor
    beginnings: Tensor | None = None
    endings: Tensor | None = None


@dataclass
class Answers:
    """What a batch gives.

    Attributes:
        log_probs: [L, V] at the L labelled tokens.
        labels: int64 [L].
        label_row: int64 [L] row of each.
        label_question: int64 [L] question of each, from 1.
        found: bool [L] whether decoding would go on from the right place: the label follows the character before, or
            the copy output points at where it stands. True where it is not copied.
        look: What came before the language model.
        kept: bool [B, N] tokens that the language model read.
        attentions: Of every layer, see `pointing_loss`.
        hidden_states: Of the language model.
        packed: See `merge_packed`.
        held: int64 [B, S', K] token ids of the characters in every column.
    """

    log_probs: Tensor
    labels: Tensor
    label_row: Tensor
    label_question: Tensor
    found: Tensor
    look: PageLook
    kept: Tensor
    attentions: tuple[Tensor, ...]
    hidden_states: tuple[Tensor, ...]
    packed: dict[str, Tensor] = field(repr=False)
    held: Tensor = field(repr=False)


def answers_begin(rows: Tensor, questions: Tensor) -> Tensor:
    """Return which labelled tokens are the first of their answer, bool [L], by the row and question of each."""
    begins = torch.ones_like(rows, dtype=torch.bool)
    begins[1:] = (rows[1:] != rows[:-1]) | (questions[1:] != questions[:-1])
    return begins


class PageAnswerer(nn.Module):
    """Answer questions from the characters of a page's cells.

    Parts have the names that they have in `SlimeModel`. `copying_head` and `context_head` serve training alone.

    Args:
        settings: Sizes.
    """

    def __init__(self, settings: AnswererSettings) -> None:
        super().__init__()
        self.settings = settings
        dim, word_dim = settings.dim, settings.word_dim
        self.projector = VisualVocabulary(vision_dim=1, dim=dim, slot_sizes=[NUM_CHARACTER_IDS] * settings.slots)
        self.page_positions = nn.Linear(dim, dim, bias=False)
        self.open_vocabulary = OpenVocabulary(
            characters=CHARACTERS, dim=dim, word_dim=word_dim, buckets=settings.buckets
        )
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.language_model = LlamaModel(
            LlamaConfig(
                vocab_size=NUM_TOKENS,
                hidden_size=dim,
                intermediate_size=dim * 11 // 4,
                num_hidden_layers=settings.layers,
                num_attention_heads=settings.heads,
                num_key_value_heads=settings.heads,
                max_position_embeddings=16384,
                rope_parameters={"rope_type": "default", "rope_theta": 1.0e5},
                attn_implementation="eager",
                use_cache=False,
            )
        )
        self.copy_output = (
            CopyOutput(dim=dim, slots=settings.slots, characters=NUM_CHARACTER_IDS) if settings.copies else None
        )
        self.answer_finder = (
            AnswerFinder(word_dim=word_dim, text_dim=dim) if settings.finds and settings.copies else None
        )
        self.copying_head = CopyingHead(dim, [NUM_CHARACTER_IDS] * settings.slots)
        self.context_head = nn.Linear(dim, word_dim, bias=False)
        self._start()

    def _start(self) -> None:
        """Start what enters the language model at one scale, and its heads as ones that match and copy."""
        settings = self.settings
        with torch.no_grad():
            self.projector.table.normal_(std=_ENTRY_STD)
            for blank in range(0, len(self.projector.table), NUM_CHARACTER_IDS):
                self.projector.table[blank] = 0.0
            vocabulary = self.open_vocabulary
            for table in (self.language_model.embed_tokens, vocabulary.offsets, vocabulary.sizes):
                table.weight.normal_(std=_ENTRY_STD)
            self.page_positions.weight.normal_(std=0.02)
            for linear in (vocabulary.words_in, vocabulary.linked_in):
                # Words are unit vectors.
                linear.weight.normal_(std=2 * _ENTRY_STD)
            half = settings.dim // 2
            for layer in self.language_model.layers:
                for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                    linear.weight.normal_(std=settings.dim**-0.5)
                for linear in (layer.mlp.gate_proj, layer.mlp.up_proj):
                    linear.weight.normal_(std=settings.dim**-0.5)
                for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
                    linear.weight.normal_(std=0.02)
                attention = layer.self_attn
                attention.q_proj.weight[:half] *= 0.8
                attention.k_proj.weight[:half] = attention.q_proj.weight[:half]
                attention.o_proj.weight += 0.3 * attention.v_proj.weight.T

    def look(self, batch: WordBatch) -> PageLook:
        """Do what comes before the language model: the pages' tokens, and how alike they are to the questions."""
        at = self.open_vocabulary.shown(batch.ids).nonzero(as_tuple=True)
        places = sincos_positions(at[1], at[2], self.settings.dim)
        shown_tokens = self.projector.embed_ids(batch.ids[at]) + self.page_positions(places)
        tokens = shown_tokens.new_zeros(*batch.ids.shape[:3], self.settings.dim).index_put(at, shown_tokens)
        tokens, linked, contexts = (part.flatten(1, 2) for part in self.open_vocabulary(tokens, batch.ids))
        words = self.open_vocabulary.question_words(batch.question_words)
        of_questions = words[batch.words_of], batch.words_of > 0
        question = self.open_vocabulary.question_vector(*of_questions)
        shown = self.open_vocabulary.shown(batch.ids).flatten(1)
        own = self.open_vocabulary.own_words(batch.ids).flatten(1, 2)
        return PageLook(
            tokens=tokens,
            linked=linked,
            words=words,
            question=question,
            cosines=torch.einsum("bnw,bqw->bqn", linked, question),
            own_cosines=torch.einsum("bnw,bqw->bqn", own, question),
            shown=shown,
            contexts=contexts,
            own=own,
            asked=self.open_vocabulary.asked_words(*of_questions),
        )

    def look_and_find(self, batch: WordBatch, most: int | None = None, frozen: bool = False) -> PageLook:
        """Do what comes before the language model, and find where answers begin among the cells that it would read.

        Args:
            batch: The batch.
            most: Look for answers among as many cells that are most like its questions, with those of keys and values.
                They are harder to tell apart than cells at random. None for those of the batch.
            frozen: Whether only the answer finder learns.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            look = self.look(batch)
        if self.answer_finder is None:
            return look
        kept = batch.kept.flatten(1) & look.shown
        if most is not None:
            alike = look.cosines.masked_fill(~((batch.asked > 0)[..., None] & look.shown[:, None]), -2.0).amax(dim=1)
            best = alike.topk(min(most, alike.shape[1]), dim=1).indices
            kept = torch.zeros_like(kept).scatter(1, best, True) | (batch.key | batch.value).any(dim=1)
            kept &= look.shown
        look.beginnings, look.endings = self.find(batch, look, kept)
        return look

    def find(self, batch: WordBatch, look: PageLook, kept: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Find where answers begin and end: [B, Q, N + 1] and [B, Q, N], see `AnswerFinder.on_pages`.

        Args:
            batch: The batch.
            look: What is known of its pages.
            kept: bool [B, N] cells that are read.
            seen: bool [B, Q, N] those of them that a question reads, None for all.
        """
        assert self.answer_finder is not None
        index = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
        cols = batch.ids.shape[2]
        cells = FinderCells(
            contexts=look.contexts,
            rows=index.div(cols, rounding_mode="floor"),
            cols=index % cols,
            image=torch.zeros_like(index),
            begins=self.open_vocabulary.run_begins(batch.ids).flatten(1),
            kept=kept,
        )
        words = (look.own, look.linked)
        begun: Tensor | None = None
        if self.training:
            begun = batch.begins[..., None] == index[:, None]
        if seen is None:
            return self.answer_finder.on_pages(cells, *words, look.question, look.asked, kept, begun)
        found = []
        for number in range(seen.shape[1]):
            one = slice(number, number + 1)
            asked = (look.question[:, one], look.asked[:, one])
            true = None if begun is None else begun[:, one]
            found.append(self.answer_finder.on_pages(cells, *words, *asked, kept & seen[:, number], true))
        beginnings, endings = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        return beginnings, endings

    def forward(self, batch: WordBatch, budget: int | None = None) -> Answers:
        """Run a batch.

        Args:
            batch: The batch.
            budget: Most tokens that a question reads, the best by the selector. None for all.
        """
        look = self.look(batch)
        kept = batch.kept.flatten(1) & look.shown
        seen = self._seen(look.cosines.detach(), kept, budget)
        kept = kept & (seen & (batch.asked > 0)[..., None]).any(dim=1)
        if self.answer_finder is not None:
            look.beginnings, look.endings = self.find(batch, look, kept, None if budget is None else seen)
        images = []
        for page, (high, wide) in enumerate(batch.sizes):
            # Positions are counted on the page itself, whatever stands beside it in the batch.
            row, col = kept[page].view(batch.kept.shape[1:]).nonzero(as_tuple=True)
            chosen = row * batch.kept.shape[2] + col
            count = high * wide
            images.append(
                PackedImage(look.tokens[page][chosen], row * wide + col, count, count, seen[page, :, chosen].T)
            )
        packed = merge_packed(self._text(batch, look), batch.rows, images)
        output = self.language_model(
            inputs_embeds=packed["inputs_embeds"],
            attention_mask=packed["attention_mask"],
            position_ids=packed["position_ids"],
            output_attentions=True,
            output_hidden_states=True,
        )
        held = batch.ids.new_zeros(*packed["is_image"].shape, batch.ids.shape[-1])
        held[packed["is_image"]] = batch.ids.flatten(1, 2)[kept]
        # Packing keeps the order of labelled tokens.
        labelled = batch.rows["labels"][:, 1:] >= 0
        follows, slots = batch.rows["follows"][:, :-1][labelled], batch.rows["slots"][:, 1:][labelled]
        return self._answers(look, output, packed, held, kept, follows, slots)

    def _seen(self, cosines: Tensor, shown: Tensor, budget: int | None) -> Tensor:
        """Return which tokens every question reads, bool [B, Q, N]."""
        seen = shown[:, None].expand(cosines.shape)
        if budget is None or budget >= seen.shape[-1]:
            return seen
        best = cosines.masked_fill(~seen, -2.0).topk(budget, dim=-1).indices
        return seen & torch.zeros_like(seen).scatter(-1, best, True)

    def _text(self, batch: WordBatch, look: PageLook) -> Tensor:
        """Embed the tokens of questions and answers: [B, S, D]."""
        rows = batch.rows
        is_word = (rows["word_at"] > 0)[..., None]
        text = self.language_model.embed_tokens(rows["input_ids"]).masked_fill(is_word, 0.0)
        text = text + self.open_vocabulary.word_tokens(look.words[rows["word_at"]]) * is_word
        # At every step of an answer, or where it begins alone: what is asked, and how much has been said.
        step, which = rows["step"], (rows["question_of"] - 1).clamp(min=0)
        vector = look.question.gather(1, which[..., None].expand(-1, -1, look.question.shape[-1]))
        guided = step > 0 if self.settings.guided else step == 1
        text = text + self.open_vocabulary.answer_step(vector, step - 1) * guided[..., None]
        if self.copy_output is None:
            return text
        best = look.cosines.masked_fill(~look.shown[:, None], -1.0).amax(dim=-1).gather(1, which)
        text = text + self.copy_output.told_similarity(best) * (step == 1)[..., None]
        if look.beginnings is not None and look.endings is not None:
            assert self.answer_finder is not None
            absent = look.beginnings[..., -1].detach().gather(1, which)
            text = text + self.answer_finder.tell(absent) * (step == 1)[..., None]
            # Cells of answers are counted on the page itself.
            wide = torch.tensor([wide for _, wide in batch.sizes], device=step.device)[:, None]
            cell = rows["answer_tokens"] - 1
            place = (cell.div(wide, rounding_mode="floor") * batch.ids.shape[2] + cell % wide).clamp(min=0)
            row = torch.arange(len(step), device=step.device)[:, None]
            ends = look.endings.detach()[row, which, place]
            # A character that did not fit into its cell is copied from nowhere.
            copied = (step > 1) & (rows["slots"] > 0)
            text = text + self.answer_finder.tell_end(ends) * copied[..., None]
        return text + self.copy_output.told(rows["follows"])

    def _answers(
        self,
        look: PageLook,
        output: BaseModelOutputWithPast,
        packed: dict[str, Tensor],
        held: Tensor,
        kept: Tensor,
        follows: Tensor,
        slots: Tensor,
    ) -> Answers:
        hidden, attentions, states = output.last_hidden_state, output.attentions, output.hidden_states
        assert hidden is not None
        assert attentions is not None
        assert states is not None
        labels = packed["labels"][:, 1:]
        at = labels >= 0
        chosen = hidden[:, :-1][at]
        logits = F.linear(chosen, self.language_model.embed_tokens.weight)
        label_row = at.nonzero()[:, 0]
        found = torch.ones_like(label_row, dtype=torch.bool)
        if self.copy_output is None:
            log_probs = logits.log_softmax(dim=-1)
        else:
            heads = attentions[-1].shape[1] // 2
            attention = attentions[-1][:, :heads, :-1].mean(dim=1)[at]
            asked = packed["question_of"][:, 1:][at] - 1
            attention = self.copy_output.liken(attention, *self._likeness(look, packed, kept, label_row, asked))
            log_probs = self.copy_output(chosen, logits, attention, held[label_row], follows)
            with torch.no_grad():
                column, slot = self.copy_output.pointed(chosen, attention, held[label_row], labels[at])
            target = packed["answer_columns"][:, 1:][at]
            right = (column == target) & (slot == slots - 1)
            found = (follows == labels[at]) | right | (slots == 0)
        owner = packed["question_of"][:, 1:][at]
        return Answers(log_probs, labels[at], label_row, owner, found, look, kept, attentions, states, packed, held)

    def _likeness(
        self, look: PageLook, packed: dict[str, Tensor], kept: Tensor, rows: Tensor, asked: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return what `CopyOutput.liken` takes beside attention, of all columns and labelled tokens, [L, S']."""
        is_image = packed["is_image"]

        def spread(scores: Tensor) -> Tensor:
            # Columns of a page's kept cells are in the order of the page.
            whole = scores.new_zeros(scores.shape[1], *is_image.shape)
            whole[:, is_image] = scores.transpose(0, 1)[:, kept]
            return whole[asked, rows]

        belief: Tensor | None = None
        if look.beginnings is not None:
            assert self.answer_finder is not None
            # Only where answers begin: what follows is copied by place.
            begins = answers_begin(rows, asked)
            belief = spread(self.answer_finder.belief(look.beginnings[..., :-1])) * begins[:, None]
        return spread(look.cosines), spread(look.own_cosines), is_image[rows], belief
