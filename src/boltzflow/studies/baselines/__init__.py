"""The methods that a user would take instead of a flow, each tuned as an expert would, and all of them at equal cost.

The methods are NUTS and adaptive tempered sequential Monte Carlo, which need BlackJAX, and parallel tempering. Each of
them is a function of these arguments that returns a `common.Answer`:

    energy: The energy of one point `(dim,)`.
    dim: The dimension.
    key: The random key.
    budget: The number of draws, particles or sweeps.
    std: Standard deviation of the wide Gaussian N(0, std² I) that the method starts from.
"""
