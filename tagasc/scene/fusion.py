"""Fusion of the tag vector T with the scene network: concatenation (section 3.1), attention (3.2), both (3.3).

The three concatenations of section 3.1 are, in ``System.concat``: ``code`` (tags appended to the code), ``code_fc``
(the same, followed by a fully connected layer) and ``before_code`` (transformed tags appended to the pooled features).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagasc.scene.systems import System
from tagasc.utils.errors import SettingError


class TagTransform(nn.Sequential):
    """Feature transform of the tags (section 3.1): n fully connected layers c → c, each with LeakyReLU."""

    def __init__(self, tags: int, layers: int, slope: float) -> None:
        pairs = [(nn.Linear(tags, tags), nn.LeakyReLU(slope)) for _ in range(layers)]
        super().__init__(*(part for pair in pairs for part in pair))


class TagAttention(nn.Module):
    """Multi-head attention on the filter dimension of the feature map; tags give the attention map (section 3.2)."""

    def __init__(self, tags: int, filters: int, heads: int) -> None:
        """Take c tags, f filters and h heads; raise SettingError if h does not divide f."""
        super().__init__()
        if filters % heads:
            raise SettingError(f"heads: {heads} does not divide the trunk's {filters} filters")
        self.heads = heads
        self.projection = nn.Linear(tags, filters)

    def attention(self, tags: Tensor) -> Tensor:
        """Compute the attention map A = [A_1, …, A_h], (batch, f), from (batch, c): a softmax within each head."""
        by_head = self.projection(tags).unflatten(1, (self.heads, -1))
        return F.softmax(by_head, dim=2).flatten(1)

    def forward(self, feature_map: Tensor, tags: Tensor) -> Tensor:
        """Compute M' of eq. 2: multiply each filter's row of M, (batch, f, t), by its value of A."""
        return feature_map * self.attention(tags).unsqueeze(2)


class Fusion(nn.Module):
    """A system's use of the tags: on the feature map, before the code layer, and after it (Figure 2).

    Attributes:
        before_code: number of values appended to the pooled features.
        after_code: number of values appended to the code.
    """

    def __init__(self, system: System, tags: int, filters: int, code_size: int, slope: float) -> None:
        """Build for c tags, f filters, a code of ``code_size`` values and LeakyReLU's ``slope``."""
        super().__init__()
        self.system = system
        self.before_code = tags if system.concat == "before_code" else 0
        self.after_code = tags if system.concat == "code" else 0
        self.for_concat = TagTransform(tags, system.concat_layers, slope)
        self.for_attention = None if system.shared else TagTransform(tags, system.attention_layers, slope)
        self.attend = TagAttention(tags, filters, system.heads) if system.heads else None
        self.new_code = nn.Linear(code_size + tags, code_size) if system.concat == "code_fc" else None

    def to_feature_map(self, feature_map: Tensor, tags: Tensor | None) -> Tensor:
        """Apply attention to the feature map, (batch, f, t), if the system has heads."""
        if self.attend is None:
            return feature_map
        transform = self.for_concat if self.system.shared else self.for_attention
        return self.attend(feature_map, transform(tags))

    def to_pooled(self, pooled: Tensor, tags: Tensor | None) -> Tensor:
        """Append transformed tags to the pooled features, (batch, 2 · f [+ c]), for *before code*."""
        return torch.cat([pooled, self.for_concat(tags)], dim=1) if self.before_code else pooled

    def to_code(self, code: Tensor, tags: Tensor | None) -> Tensor:
        """Append tags to the code, (batch, code size [+ c]), for *codecat*, or transform both into a new code."""
        if self.new_code is not None:
            return self.new_code(torch.cat([code, tags], dim=1))
        return torch.cat([code, tags], dim=1) if self.after_code else code
