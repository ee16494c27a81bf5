"""The copy output mixes two distributions."""

import torch

from slime_vlm.model.copy_output import CopyOutput


def test_by_hand() -> None:
    output = CopyOutput(dim=2, slots=2)
    with torch.no_grad():
        for linear in (output.gate, output.slot):
            linear.weight.zero_()
            linear.bias.zero_()
    # Half by the language model, evenly over 4 tokens; half copied, each slot alike. Token 0 is nothing.
    attention = torch.tensor([[0.8, 0.2]])
    ids = torch.tensor([[[1, 2], [2, 0]]])
    found = output(torch.zeros(1, 2), torch.zeros(1, 4), attention, ids).exp()
    expected = torch.tensor([[0.125, 0.125 + 0.2, 0.125 + 0.2 + 0.05, 0.125]])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
