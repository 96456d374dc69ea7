"""A number with its standard error in the notation of physics: 1.05093(5) is 1.05093 ± 0.00005.

The figures in parentheses are the error in units of the last digit of the value. There is one, and two where the first
is 1 or 2, so that the error is rounded by at most a fifth.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

_SHOWN = 6  # entries of an array
_LARGE = 1e7
_SMALL = 1e-4


def concise(value: float, stderr: float) -> str:
    """The value with its error in parentheses, in six digits where there is no error.

    >>> concise(1.050931, 0.000049), concise(-12.3456, 1.2), concise(41234.0, 120.0), concise(0.5, 0.0)
    ('1.05093(5)', '-12.3(1.2)', '41230(120)', '0.5')
    """
    if not (math.isfinite(value) and math.isfinite(stderr)):
        return f"{value:.6g}" + ("" if stderr == 0 else f" ± {stderr:.2g}")
    if stderr <= 1e-12 * abs(value):
        return f"{value:.6g}"
    largest = max(abs(value), stderr)
    if largest >= _LARGE or largest < _SMALL:
        exponent = math.floor(math.log10(largest))
        scale = 10.0**exponent
        return f"{concise(value / scale, stderr / scale)}e{exponent:+03d}"
    first = math.floor(math.log10(stderr))
    num_figures = 2 if float(f"{stderr:.1e}") < 3 * 10.0**first else 1
    decimals = num_figures - 1 - first
    if decimals <= 0:
        return f"{round(value, decimals):.0f}({round(stderr, decimals):.0f})"
    error = f"{stderr:.{decimals}f}"
    return f"{value:.{decimals}f}({error if stderr >= 1 else error.replace('.', '').lstrip('0')})"


def concise_array(value: ArrayLike, stderr: ArrayLike) -> str:
    """The entries of an array with their errors, in brackets as NumPy writes them; of a long one the ends."""
    values, stderrs = np.broadcast_arrays(np.asarray(value, np.float64), np.asarray(stderr, np.float64))
    if values.ndim == 0:
        return concise(float(values), float(stderrs))
    texts = np.empty(values.shape, object)
    for index in np.ndindex(values.shape):
        texts[index] = concise(float(values[index]), float(stderrs[index]))
    return np.array2string(
        texts,
        max_line_width=110,
        separator=", ",
        formatter={"all": str},
        threshold=_SHOWN,
        edgeitems=_SHOWN // 2,
    )
