"""Weighted samples of a run, and the same as arrays or as a table."""

from dataclasses import dataclass, fields
from html import escape
from typing import Any

import numpy as np
from jaxtyping import Float

from boltzflow.errors import InputError
from boltzflow.statistics.estimates import reverse_ess


@dataclass(frozen=True)
class Samples:
    """Samples with their importance weights, in double precision. Those of a flow are independent.

    E_p[O(x)] is the average of O(x) with the weights w ∝ exp(log_weight): `np.average(x, axis=0, weights=s.weight)`.

    Args:
        x: The samples, `(num, dim)`.
        log_weight: -energy - log_prob, in nats, `(num,)`.
        log_prob: The log-density that the samples are drawn from, `(num,)`.
        energy: The target's energy, `(num,)`.
    """

    x: Float[np.ndarray, "num dim"]
    log_weight: Float[np.ndarray, " num"]
    log_prob: Float[np.ndarray, " num"]
    energy: Float[np.ndarray, " num"]

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.x)

    @property
    def weight(self) -> Float[np.ndarray, " num"]:
        """exp(log_weight) over its largest value, `(num,)`; 0 where the log-weight is -inf or NaN."""
        log_w = np.where(self.log_weight < np.inf, self.log_weight, -np.inf)
        largest = log_w.max(initial=-np.inf)
        return np.exp(log_w - largest) if np.isfinite(largest) else np.zeros(len(log_w))

    def to_numpy(self) -> dict[str, np.ndarray]:
        """The arrays `x` `(num, dim)`, `log_weight`, `log_prob` and `energy` `(num,)` by name, as for `np.savez`."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    def to_dataframe(self) -> Any:
        """A `pandas.DataFrame` with a row for each sample: `x0`, `x1`, ..., `log_weight`, `log_prob`, `energy`.

        Raises:
            InputError: Pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise InputError("to_dataframe needs pandas: pip install 'boltzflow[pandas]'") from error
        columns = {f"x{i}": column for i, column in enumerate(self.x.T)}
        return pandas.DataFrame({**columns, **{n: a for n, a in self.to_numpy().items() if n != "x"}})

    def __repr__(self) -> str:
        num, dim = self.x.shape
        words = [f"{num:,} samples in {dim} dimension{'s' if dim > 1 else ''}"]
        if num > 1:
            ess = reverse_ess(self.log_weight)
            words.append(f"effective share {ess.value:.3f}" + ("" if ess.ok else " !"))
        words.append("x, log_weight, log_prob, energy")
        return f"<Samples: {'; '.join(words)}>"

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"
