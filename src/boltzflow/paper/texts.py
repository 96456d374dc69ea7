"""What `docs/paper.md` says besides its numbers."""

HEAD = """\
# The paper, reproduced

Every table and figure of Máté & Fleuret, *Learning Interpolations between Boltzmann Densities* (TMLR 2023), by
`boltzflow reproduce NAME`; this page is written by that command from the rows that it keeps. Ours are of the preset
"{preset}", with its pilot, base and optimizer, and not of the paper's settings: what is compared is the method as this
package runs it with what was published. Mean ± standard deviation over seeds. "Exact" is what a perfect sampler would
have. A mark says whether our mean is better than the published one, equal within the spread of both and the digits that
were printed, or worse; or that our seeds end in different places, "scattered", which only failing methods do.
"Trusted" are the seeds that the report of their run trusted when it was measured.

The baselines (reverse KL, linear and diffusion path) keep the base that the paper gives them: a standard Gaussian for
Eq. (2), one of standard deviation 2 for Eq. (18), exp(-x⁴) for the chain; and they train on none of the points that the
pilot found. A base that was fitted to the target, or points in all of its modes, would hide what they lack."""

TEXTS = {
    "table1": """\
The collapse of the reverse KL, and that of the linear path on Eq. (18), are findings of the paper: a flow in one mode
has fine reverse metrics, and the forward ones and the Hausdorff distance show what is missing, here as there. On
Eq. (2) the reverse KL ends in one, two or three of the four modes; a sample stranded between two of them can hold most
of the weight, as it does for three seeds of five, and then the reverse ESS is low too. On the linear path on Eq. (18)
the velocity that the continuity equation asks for explodes (Fig. 6): four seeds of five end in one mode, as published,
and one ends nowhere.""",
    "table2": """\
Beyond the paper: the exact −log Z, and forward KL and forward ESS from exact samples of the transfer matrix. No
sampler's reverse KL can be below −log Z; where the published one is, by the error of its samples and solver, the mark
compares with −log Z. So it is with the Hausdorff distance, how near the modes the nearest of 4096 samples comes: that
of exact samples is larger than what was published, we do not know why, and a sampler that comes nearer than those is no
better one. The mark then compares with exact samples. The reverse KL here takes a tenth of the paper's steps.""",
    "fig5": "The exact velocity V_t = −∂_t F_t / p_t stays of the size of the modes' distance.",
    "fig6": "Mass changes mode where there is nearly no density to carry it: the norm of V_t explodes.",
    "fig10": """\
The histogram need not follow exp(−V), as the paper says; it must follow the black curve, the exact density of a
site.""",
    "speed": """\
The reverse KL here is a fair baseline of our own (8 RK4 intervals, checkpointed, Muon), not the paper's 50 intervals.
There are twenty looks at the ESS in a run, so that steps to 0.9 are known to a twentieth of it. Curves are of 2048
samples, which overstate a small ESS; the final one is of the report's samples.""",
    "penalties": "Everything else as in the preset.",
    "letter": """\
The preset "paper" is what the paper says and nothing else: its base, its networks, Adam, every point of 50 RK4 steps
of 256 trajectories, no pilot's points, and all of its steps. Beside it, our default on the same cell; a number without
a spread is of one seed. Dashed in the figure: the default.""",
    "letter not run": """\
A step was measured to take 0.21 s of processor time on Eq. (2), 1.4 s on the chain at N = 4 and 3.4 s at N = 16, on a
machine that had other work besides. So 10⁴ steps of these two chains are 4 and 9 hours of it; the paper takes 10⁵ steps
at N = 32 and 2.5·10⁵ at N = 64.""",
}
