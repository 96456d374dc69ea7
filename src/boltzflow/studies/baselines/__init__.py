"""The methods that a user would take instead of a flow, each tuned as an expert would, and all of them at equal cost.

NUTS, adaptive tempered SMC and parallel tempering are functions of the energy of one point, the dimension, a key, the
budget (draws, particles or sweeps) and `std`, the scale of the wide Gaussian that they start from; each returns an
`Answer`. The first two need BlackJAX.
"""
