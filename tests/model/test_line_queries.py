from __future__ import annotations

import pytest
import torch

from slime_vlm.errors import ConfigError
from slime_vlm.model.line_queries import LINES, LineContext, LineQueries


@pytest.fixture
def queries() -> LineQueries:
    """Cells of 3 x 2 features, a margin of one feature at every edge: maps of 8 x 6 show 2 x 2 cells."""
    torch.manual_seed(0)
    return LineQueries(dim=5, hidden=7, cell=(3, 2), margin=(1, 1))


def test_shapes(queries: LineQueries) -> None:
    assert queries(torch.randn(4, 5, 8, 6)).shape == (4, 2, 4, LINES, 7)


def test_a_place_sees_its_cell_and_what_is_beside_it_alone(queries: LineQueries) -> None:
    """Row 0 looks at the features of rows 0 to 4, place 1 at those of columns 1 to 3, and scores see one further."""
    torch.manual_seed(1)
    feature_map = torch.randn(1, 5, 8, 6)
    before = queries(feature_map)
    for row, col in ((6, 2), (2, 5), (7, 0)):
        other = feature_map.clone()
        other[0, :, row, col] += 3.0
        assert torch.equal(queries(other)[0, 0, 1], before[0, 0, 1])
    other = feature_map.clone()
    other[0, :, 2, 2] += 3.0
    assert not torch.allclose(queries(other)[0, 0, 1], before[0, 0, 1])


def test_an_even_look_at_a_column_by_hand(queries: LineQueries) -> None:
    """Without scores and biases every head takes the mean of five rows; the middle column alone counts."""
    with torch.no_grad():
        queries.score.weight.zero_()
        queries.row_bias.zero_()
        for linear in (queries.left, queries.middle, queries.right):
            linear.weight.zero_()
        queries.middle.bias.zero_()
        queries.middle.weight[0, 0] = 1.0
    feature_map = torch.zeros(1, 5, 8, 6)
    feature_map[0, 0, 0:5, 3] = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    found = queries(feature_map)[0, 0, :, 0, 0]
    # Column 3 of the map is place 2; gelu(3) = 2.9960.
    assert found.tolist() == pytest.approx([0.0, 0.0, 2.9960, 0.0], abs=1e-4)


def test_tiles_of_a_batch_are_read_one_by_one(queries: LineQueries) -> None:
    maps = torch.randn(3, 5, 8, 6)
    alone = torch.cat([queries(one[None]) for one in maps])
    torch.testing.assert_close(queries(maps), alone, rtol=1e-5, atol=1e-6)


def test_channels_are_brought_to_one_scale(queries: LineQueries) -> None:
    scale = torch.tensor([0.1, 1.0, 10.0, 3.0, 5.0])[:, None, None]
    plain = torch.randn(4, 5, 8, 6)
    queries.fit(plain)
    expected = queries(plain)
    queries.fit(plain * scale + 2.0)
    torch.testing.assert_close(queries(plain * scale + 2.0), expected, rtol=0.2, atol=0.1)


def test_context_starts_as_the_identity_and_reaches_five_columns() -> None:
    torch.manual_seed(2)
    context = LineContext(dim=3)
    x = torch.randn(2, 3, 5, 20)
    assert torch.equal(context(x), x)
    torch.nn.init.normal_(context.contract.weight)
    other = x.clone()
    other[:, :, 2, 10] += 3.0
    seen = (context(other) - context(x)).abs().sum(dim=(0, 1)) > 1e-5
    assert seen.nonzero().amin(dim=0).tolist() == [1, 5]
    assert seen.nonzero().amax(dim=0).tolist() == [3, 15]


def test_context_by_hand() -> None:
    """One channel has norm 0, so what the bias of `expand` gives is added: 2 * gelu(1) = 1.6827."""
    context = LineContext(dim=1)
    with torch.no_grad():
        context.expand.bias.fill_(1.0)
        context.contract.weight.fill_(1.0)
    assert context(torch.zeros(1, 1, 2, 2)).flatten().tolist() == pytest.approx([1.6827] * 4, abs=1e-4)


def test_context_comes_before_the_heads(queries: LineQueries) -> None:
    torch.manual_seed(0)
    more = LineQueries(dim=5, hidden=7, cell=(3, 2), margin=(1, 1), context=2)
    missing = more.load_state_dict(queries.state_dict(), strict=False).missing_keys
    assert missing
    assert all(name.startswith("context.") for name in missing)
    maps = torch.randn(3, 5, 8, 6)
    assert torch.equal(more(maps), queries(maps))


def test_a_map_without_margin_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"a margin of \(0, 2\) features, expected at least 1"):
        LineQueries(dim=5, hidden=7, cell=(3, 6), margin=(0, 2))
