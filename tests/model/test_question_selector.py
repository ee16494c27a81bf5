from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from slime_vlm.errors import ConfigError
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.model.question_selector import QuestionSelector, keep_most_probable
from slime_vlm.model.scorers import AttentionScorer, cosine_scores, token_norms
from slime_vlm.model.selectors import SELECTORS

SCORING = [name for name, selector in SELECTORS.items() if selector.build is not None]


def selector(kind: str = "cosine") -> QuestionSelector:
    torch.manual_seed(0)
    return QuestionSelector(kind=kind, dim=8, num_heads=2).eval()


def example(images: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "local_tokens": torch.randn(images, 10, 8),
        "text": torch.randn(images, 5, 8),
        "text_mask": torch.rand(images, 5) > 0.3,
        "lengths": torch.tensor([10, 7, 4])[:images],
    }


def test_scores_are_the_sum_of_cosines() -> None:
    case = example()
    scores = cosine_scores(case["local_tokens"], case["text"], case["text_mask"])
    for image in range(3):
        for token in range(10):
            local = case["local_tokens"][image, token].expand(5, -1)
            cosines = F.cosine_similarity(local, case["text"][image], dim=-1)
            expected = cosines[case["text_mask"][image]].sum()
            torch.testing.assert_close(scores[image, token], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", SCORING)
def test_images_of_one_row_share_its_text(kind: str) -> None:
    """The text comes once, and each image names its row; norms that were computed before change nothing."""
    module, case = selector(kind), example()
    rows = torch.tensor([0, 0, 2])
    expected = module(**(case | {name: case[name][rows] for name in ("text", "text_mask")}))
    norms = token_norms(case["local_tokens"])
    for known in (None, norms):
        found = module(**case, rows=rows, norms=known)
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-6, rtol=1e-6)
        assert torch.equal(found.kept, expected.kept)


def test_norms_by_hand() -> None:
    tokens = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert token_norms(tokens).tolist() == pytest.approx([5.0, 1e-8])
    seen = VisionTokens((1, 1), local_tokens=tokens)
    assert seen.local_norms() is seen.local_norms()
    # Other tokens have other norms.
    assert seen.to(torch.float64).local_norms() is not seen.local_norms()
    seen.local_tokens = tokens + 1
    assert seen.local_norms()[1] == pytest.approx(math.sqrt(2))
    # What wraps a model may rebuild its outputs, as FSDP2 does in mixed precision.
    assert torch.equal(replace(seen, local_tokens=tokens).local_norms(), token_norms(tokens))


def test_top_p_by_hand() -> None:
    probs = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    lengths = torch.tensor([4])
    # Cumulative: 0.4, 0.7, 0.9, 1.0. As many as stay at or below top-p, and one more.
    assert keep_most_probable(probs, lengths, 0.65).tolist() == [[False, True, False, True]]
    assert keep_most_probable(probs, lengths, 0.75).tolist() == [[False, True, True, True]]
    assert keep_most_probable(probs, lengths, 0.0).tolist() == [[False, True, False, False]]
    assert keep_most_probable(probs, lengths, 0.95).all()


def test_top_p_one_keeps_all_though_sums_round() -> None:
    probs = torch.full((1, 3000), 1 / 3000)
    assert keep_most_probable(probs, torch.tensor([3000]), 1.0).all()


@pytest.mark.parametrize("budget", [1, 3, 6, 50])
def test_budget_is_exact(budget: int) -> None:
    case = example()
    kept = selector()(**case, max_tokens=budget, top_p=0.3).kept
    assert kept.sum(1).tolist() == [min(budget, length) for length in case["lengths"].tolist()]


def test_budget_keeps_the_best() -> None:
    case = example()
    out = selector()(**case, max_tokens=3)
    for image, length in enumerate(case["lengths"].tolist()):
        best = out.scores[image, :length].topk(3).indices.sort().values
        assert out.kept[image].nonzero()[:, 0].tolist() == best.tolist()


@pytest.mark.parametrize("kind", SELECTORS)
def test_batch_is_one_by_one(kind: str) -> None:
    module, case = selector(kind), example()
    batch = module(**case)
    for image, length in enumerate(case["lengths"].tolist()):
        single = module(
            case["local_tokens"][image : image + 1, :length],
            case["text"][image : image + 1],
            case["text_mask"][image : image + 1],
            case["lengths"][image : image + 1],
        )
        torch.testing.assert_close(batch.scores[image, :length], single.scores[0])
        torch.testing.assert_close(batch.probs[image, :length], single.probs[0])
        assert torch.equal(batch.kept[image, :length], single.kept[0])
        assert not batch.kept[image, length:].any()
        assert batch.probs[image, length:].eq(0).all()


def test_order_of_tokens_does_not_matter() -> None:
    case = example(1)
    order = torch.randperm(10)
    turned = {**case, "local_tokens": case["local_tokens"][:, order]}
    assert torch.equal(selector()(**case).kept[:, order], selector()(**turned).kept)


def test_temperature_sharpens() -> None:
    case = example(1)
    kept = [int(selector()(**case, temperature=t, top_p=0.9).kept.sum()) for t in (0.1, 1.0, 10.0)]
    assert kept == sorted(kept)
    assert kept[0] < kept[-1]


def test_noise_only_in_training() -> None:
    module, case = selector(), example(1)
    noise = torch.randn(1, 10)
    clean = module(**case)
    assert torch.equal(module(**case, noise=noise).probs, clean.probs)
    noisy = module.train()(**case, noise=noise)
    torch.testing.assert_close(noisy.probs, (clean.scores + 0.1 * noise).softmax(-1))
    assert torch.equal(noisy.scores, clean.scores)
    assert torch.equal(module(**case, noise_std=0.0).probs, clean.probs)


def test_attention_scores_pass_the_softmax_twice() -> None:
    module, case = selector("attention"), example(1)
    out = module(**case, temperature=0.5)
    assert module.scorer is not None
    logits = module.scorer(case["local_tokens"], case["text"], case["text_mask"])
    torch.testing.assert_close(out.scores, (logits / 0.5).softmax(-1))
    torch.testing.assert_close(out.probs, (out.scores / 0.5).softmax(-1))


def test_attention_scorer_ignores_masked_text() -> None:
    module, case = selector("attention"), example(2)
    changed = case["text"].masked_fill(~case["text_mask"][..., None], 9.0)
    torch.testing.assert_close(module(**case).scores, module(**{**case, "text": changed}).scores)


@pytest.mark.parametrize("kind", SCORING)
def test_row_without_text_is_no_nan(kind: str) -> None:
    case = example(2)
    out = selector(kind)(**{**case, "text_mask": torch.zeros(2, 5, dtype=torch.bool)})
    assert out.probs.isfinite().all()
    assert math.isclose(out.probs[1].sum().item(), 1.0, rel_tol=1e-5)


def test_none_keeps_all() -> None:
    case = example()
    assert selector("none")(**case, top_p=0.1).kept.sum(1).tolist() == [10, 7, 4]


def test_scores_are_differentiable_and_the_mask_is_hard() -> None:
    case = example(1)
    case["local_tokens"].requires_grad_()
    out = selector()(**case)
    assert not out.kept.requires_grad
    out.scores.sum().backward()
    assert case["local_tokens"].grad is not None


def test_scorer_errors() -> None:
    with pytest.raises(ConfigError, match="heads"):
        AttentionScorer(dim=8, num_heads=3)
