"""What a user would pick instead of a flow to get log Z, each tuned as an expert would: adaptive tempered sequential
Monte Carlo (`smc`), and parallel tempering (`tempering`)."""
