"""How a tag vector T joins the scene network: sections 3.1 (concatenation), 3.2 (attention) and 3.3 (both)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagasc.scene.systems import System
from tagasc.utils.errors import SettingError


class TagTransform(nn.Sequential):
    """n fully connected layers c → c, each followed by LeakyReLU; with n = 0 the tags themselves."""

    def __init__(self, tags: int, layers: int, slope: float) -> None:
        pairs = [(nn.Linear(tags, tags), nn.LeakyReLU(slope)) for _ in range(layers)]
        super().__init__(*(part for pair in pairs for part in pair))


class TagAttention(nn.Module):
    """Multi-head attention over the filters of the feature map, steered by the tags (section 3.2)."""

    def __init__(self, tags: int, filters: int, heads: int) -> None:
        """Raises ValueError if ``heads`` does not divide ``filters``."""
        super().__init__()
        if filters % heads:
            raise SettingError(f"heads: {heads} does not divide the trunk's {filters} filters")
        self.heads = heads
        self.projection = nn.Linear(tags, filters)

    def attention(self, tags: Tensor) -> Tensor:
        """The attention map A = [A_1, …, A_h]: (batch, tags) → (batch, filters), a softmax within each head."""
        by_head = self.projection(tags).unflatten(1, (self.heads, -1))
        return F.softmax(by_head, dim=2).flatten(1)

    def forward(self, feature_map: Tensor, tags: Tensor) -> Tensor:
        """M' of eq. 2: each filter's row of M, (batch, filters, time), times its value of A."""
        return feature_map * self.attention(tags).unsqueeze(2)


class Fusion(nn.Module):
    """What a system adds to the trunk: attends the feature map, and widens what the code layer sees.

    Attributes:
        before_code: values added to the pooled features.
        after_code: values appended to the code as the SVM and the output layer see it.
    """

    def __init__(self, system: System, tags: int, filters: int, code_size: int, slope: float) -> None:
        """Args: the record, c tags, f filters, values of the code, slope of LeakyReLU."""
        super().__init__()
        self.system = system
        self.before_code = tags if system.concat == "before_code" else 0
        self.after_code = tags if system.concat == "code" else 0
        self.for_concat = TagTransform(tags, system.concat_layers, slope)
        self.for_attention = None if system.shared else TagTransform(tags, system.attention_layers, slope)
        self.attend = TagAttention(tags, filters, system.heads) if system.heads else None
        self.new_code = nn.Linear(code_size + tags, code_size) if system.concat == "code_fc" else None

    def to_feature_map(self, feature_map: Tensor, tags: Tensor | None) -> Tensor:
        """(batch, filters, time), attended if the system has attention."""
        if self.attend is None:
            return feature_map
        transform = self.for_concat if self.system.shared else self.for_attention
        return self.attend(feature_map, transform(tags))

    def to_pooled(self, pooled: Tensor, tags: Tensor | None) -> Tensor:
        """(batch, 2 · filters [+ tags]): the pooled features, tags appended for *before code*."""
        return torch.cat([pooled, self.for_concat(tags)], dim=1) if self.before_code else pooled

    def to_code(self, code: Tensor, tags: Tensor | None) -> Tensor:
        """(batch, code size [+ tags]): the code that the output layer and the SVM see (*codecat*)."""
        if self.new_code is not None:
            return self.new_code(torch.cat([code, tags], dim=1))
        return torch.cat([code, tags], dim=1) if self.after_code else code
