"""The methods that a user would take instead of a flow, each tuned as an expert would, and all of them at equal cost.

The methods are NUTS and adaptive tempered sequential Monte Carlo, which need BlackJAX, and parallel tempering.
"""
