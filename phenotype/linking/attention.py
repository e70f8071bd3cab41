"""Gated attention: the usual multiple-instance network. A baseline as published, and the better for two changes.

M. Ilse, J. Tomczak and M. Welling, "Attention-based deep multiple instance learning", ICML 2018, with weights of its
own for each term. The image's score is exactly theirs: a linear layer on the attention-weighted mean of the regions'
features is the same weighted mean of the linear layer's output for each region. By itself it learns wrong reports by
heart; in `combined` its loss is the likelihood of the report's words.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from phenotype.linking.mil import InstanceMil
from phenotype.linking.training import Loss


class GatedAttention(InstanceMil):
    """The map is attention times the score of the region, since attention alone is no measure of the finding."""

    name: ClassVar[str] = "attention"
    default_loss: ClassVar[Loss] = "bce"

    def network(self, d: int, terms: int) -> nn.Module:
        """Outputs (n, 2 * n_terms): the score of a region, then its attention before the softmax."""
        return _Gated(d, self.hidden, terms)

    def pool(self, scores: Tensor, share: Tensor | float = 1.0) -> Tensor:
        """Attention-weighted mean of the scores."""
        value, attention = scores.chunk(2, dim=2)
        weight = torch.softmax(attention, dim=1)
        return (weight * torch.where(torch.isfinite(value), value, 0.0)).sum(dim=1)

    def confine(self, outputs: Tensor, allowed: Tensor) -> Tensor:
        """Regions that are not allowed get no attention."""
        return outputs.masked_fill(~torch.cat([allowed, allowed], dim=2), -torch.inf)

    def seen(self, outputs: Tensor) -> Tensor:
        """Share of attention, 1 on average, times the probability by the region's own score."""
        value, attention = outputs.chunk(2, dim=1)
        return torch.softmax(attention, dim=0) * len(outputs) * torch.sigmoid(value)


class _Gated(nn.Module):
    def __init__(self, d: int, hidden: int, terms: int) -> None:
        super().__init__()
        self.embed = nn.Linear(d, hidden)
        self.signal = nn.Linear(hidden, hidden)
        self.gate = nn.Linear(hidden, hidden)
        self.attention = nn.Linear(hidden, terms)
        self.value = nn.Linear(hidden, terms)

    def forward(self, regions: Tensor) -> Tensor:
        embedded = functional.relu(self.embed(regions))
        gated = torch.tanh(self.signal(embedded)) * torch.sigmoid(self.gate(embedded))
        return torch.cat([self.value(embedded), self.attention(gated)], dim=1)
