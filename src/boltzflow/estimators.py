"""Statistics of arrays, each returned with its own error bar and a word on whether it can be believed."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number, its standard error, from how many samples, by which method, and whether it may be believed.

    `ok` is False where the number is not to be relied on; `reason` then says why in one sentence.
    """

    value: float
    stderr: float
    n: int
    method: str = ""
    ok: bool = True
    reason: str = ""
