"""Table: the embeddings of a split as the learner sees them, by row."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, device

from leo_lightning.data.normalization import Normalization
from leo_lightning.data.row_file import RowFile


@dataclass(eq=False)
class Table:
    """Embeddings, normalised once and kept on the device, or read from the disk when they are asked for."""

    embeddings: Float[Tensor, "n E"]
    """As stored."""
    normalization: Normalization
    in_memory: bool
    file: RowFile | None
    """The file to read from unless `in_memory`; None: `embeddings` lie in memory."""
    _rows: Tensor | None = None

    def rows(self, index: Tensor | slice, device: device) -> Float[Tensor, "rows E"]:
        """Return rows by their numbers, on the device."""
        if not self.in_memory:
            return self.normalization(self._read(index)).to(device)
        rows = self.normalization(self.embeddings) if self._rows is None else self._rows
        rows = self._rows = rows.to(device)
        return rows[index] if isinstance(index, slice) else rows.index_select(0, index)

    def _read(self, index: Tensor | slice) -> Tensor:
        """Return embeddings as they are on disk."""
        if isinstance(index, slice):
            return self.embeddings[index]
        return self.embeddings[index.cpu()] if self.file is None else self.file.read(index.cpu())
