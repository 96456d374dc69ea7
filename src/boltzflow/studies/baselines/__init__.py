"""What a user would pick instead of a flow, each tuned as an expert would: NUTS, adaptive tempered sequential Monte
Carlo, parallel tempering; and all of them beside a flow at equal cost (`compare`). The first two need BlackJAX."""
