"""What `docs/paper.md` says besides its numbers."""

HEAD = """\
# The paper, reproduced

Every table and figure of Máté & Fleuret, *Learning Interpolations between Boltzmann Densities* (TMLR 2023), but its
Fig. 1, a sketch of the idea, by `boltzflow reproduce NAME`; this page is written by that command from the rows that it
keeps. Ours are of the preset "{preset}", with its pilot, base and optimizer, and not of the paper's settings: what is
compared is the method as this package runs it with what was published. The paper's comparison of both losses under its
own settings was not run; three of its continuity cells were, a seed of each, and stand at the end. The pilot finds the
target by short annealed runs before any training, fits the base to what it found, and lends its points to the first
steps.

The metrics are the paper's: H(M, X), its Eq. (23), is how far the farthest mode M is from the nearest of 4096 samples
X; "reverse KL" is E_q[log q + f] = KL(q, p) − log Z, so that a perfect flow has −log Z and not 0; "forward KL" is
KL(p, q); the ESS are between 0 and 1. The paper takes 4096 samples for all of them; here the reverse ones are of 10⁵
samples and the forward ones of 20,000 exact samples, which see tails that 4096 seldom see. "Exact" is what a perfect
sampler would have.

Mean ± standard deviation over seeds; where that is larger than the mean and than 1, the median and the range. Each seed
is better than the published mean, equal to it within the published spread and half a unit of the last digit of both
printed numbers (0.001 for the ESS of Table 1 where the spread is printed as 0.000), or worse: the mark says which all
seeds are, or how many are which. In parentheses: the seeds, the median of their time for pilot and training without
compiling, and how many of them the report of their run trusted when it was measured.

The baselines (reverse KL, linear and diffusion path) keep the base that the paper gives them: a standard Gaussian for
Eq. (2), one of standard deviation 2 for Eq. (18), exp(-x⁴) for the chain; and they train on none of the points that the
pilot found. A base that was fitted to the target, or points in all of its modes, would hide what they lack. They take
fewer steps than the paper's 10⁴: the reverse KL 1000, the linear and the diffusion path 2500."""

TEXTS = {
    "jobs": """\
Some of these seeds were trained side by side, up to {jobs} at a time on one machine: their seconds are longer, and
their steps in a second fewer, than those of a training alone.""",
    "table1": """\
The collapse of the reverse KL, and that of the linear path on Eq. (18), are findings of the paper: a flow in one mode
has fine reverse metrics, and the forward ones and the Hausdorff distance show what is missing, here as there. The
reverse KL loses three of four modes in four seeds of five, two in the other (−log Z of what is left: log 4, log 2). How
large a forward KL is without a mode is a matter of how q falls off there, of which a sample says little. On the linear
path on Eq. (18) every seed loses a mode, as published, with a few stray samples near it; of the same five seeds on
another machine one was lost altogether (reverse ESS 10⁻⁵), which our optimizer at its larger rate may have to do with.
A path like it in one dimension asks for a velocity that explodes (Fig. 6).

On Eq. (2) the linear path does better than the trainable one, by reverse KL and ESS in every seed and in half the time,
from a standard Gaussian and without a pilot; in the paper it does a little worse. On Eq. (18) it is worse than
published in every seed (H and both KL).

Where the trainable path is marked worse, it is the ESS of single seeds. Of its samples 2 to 6 in 10⁴ are left between
the modes, where they come more than three times too often; one exact sample of 20,000 that lies among them, or a few,
decide the forward ESS, an average of (q/p)² that need not converge. The lowest, 0.984 of seed 3 on Eq. (18), is the
work of one exact sample where q/p = 19; the same exact samples are asked of every flow of a seed. Over 262,144 others a
flow of that seed has 0.9955 (`make forward-ess`, flows of the same seeds that were trained on another machine). With
4096 exact samples for each of five seeds, as in the paper, the mean over the seeds is 0.9991 on Eq. (18) and 0.9991 on
Eq. (2), in the median of 64 such tables. This mean is within 0.001 of the published one in 39 of the 64 on Eq. (18),
and prints as 1.000 in 19; on Eq. (2) it is so in 47, and prints as 0.999 or 1.000 in 40. All five seeds are within
0.001 in 18 and in 28; the worst tables have means of 0.961 and 0.899. In reverse ESS no seed on Eq. (2) prints as
1.000, as published. Half the points in twice the steps halve the strays on Eq. (2) and bring the reverse ESS of two
seeds from 0.9989 and 0.9992 to 0.9995 and 0.9994, where 1.000 is printed; that is not the default.
`docs/performance.md` says what else was tried. log Z of all ten seeds is right to 1.2·10⁻⁴ and within two of its
standard errors.""",
    "table2": """\
Beyond the paper: the exact −log Z, the gap to it, which is KL(q, p), and forward KL and forward ESS from exact samples
of the transfer matrix. No sampler's reverse KL can be below −log Z, though an average over samples can by chance; the
published ones are at m = 1.5 (both) and, by a hair, at m = 3, and the mark then compares with −log Z. So it is with the
Hausdorff distance: that of exact samples is larger than what was published for the continuity loss at m = 4.5 and 6, we
do not know why, and a sampler that comes nearer than those is no better one. The mark then compares with exact samples.

The reverse KL takes a tenth of the paper's steps here, in about half a minute, and does worse than the published one,
at m = 1.5 too; at m = 3 all of our seeds lose one of the two wells where the paper's found both, and at m = 4.5 and 6,
where those of the paper lose one as well, the well that is left is not as well covered. That our trainable path is
better than published is the work of pilot, fitted base and optimizer together with the loss, and its ESS are of 10⁵
samples.""",
    "fig5": "The exact velocity V_t = −∂_t F_t / p_t stays of the size of the modes' distance.",
    "fig6": "Mass changes mode where there is nearly no density to carry it: the norm of V_t explodes.",
    "fig10": """\
The histogram need not follow exp(−V), as the paper says; it must follow the black curve, the exact density of a
site.""",
    "speed": """\
One seed each. Steps/s are those of training, between the looks at the ESS, without the pilot; a quarter of the steps of
the continuity loss take the pilot's points and fly no trajectories, which is part of why they are cheaper. Steps to
0.9 are those from which on the ESS stays there, pilot included in the seconds, seen at twenty looks in a run. The
reverse KL is our own (8 RK4 intervals where the paper has 50, checkpointed, Muon) and takes 1000 steps, a tenth of the
paper's at N = 16 and a 250th at N = 64: that it has not arrived there does not say that it would not. Curves are of
2048 samples, which overstate a small ESS; the final one is of the report's samples. Dashed: the reverse KL, which
trains no path that could have a residual, hence no such curve in the lower row.""",
    "paths": """\
In Table 1 the trainable path has a pilot and a base that covers both modes from the start (Fig. 8), which the linear
path has not. Here all three paths start from the same base, a Gaussian of standard deviation 2, with the same optimizer
and 2500 steps, and no pilot; the last row is that of Table 1. So trained, the trainable path holds both modes in one
seed of three and loses the heavier one in two (log 3), which the verdict says; where it holds them it is as good.
What Table 1 shows of it is therefore the work of path, base and pilot together. The diffusion path, which only mixtures
have, is right in every seed.""",
    "penalties": """\
Everything else as in the preset. The paper found |r| + r² to be the best. Here r² does as well on Eq. (18), with half
the reverse KL, log(1 + |r|) does worst on both, and |r| + r² has the best reverse ESS or one as good as any.""",
    "letter": """\
The preset "paper" is what the paper says and nothing else: its base, its networks, Adam, every point of 50 RK4 steps of
256 trajectories, no pilot's points, and all of its steps. Beside it, our default on the same cell; a number without a
spread is of one seed. Its metrics are of 4096 samples, as in the paper, the forward ones of 20,000 exact samples. Its
three trainings ran on slower machines than the default's, with other work beside them: a step, the median over the
stretches between looks, is known to a factor of two, so that steps compare and seconds hardly do. What was published
comes out again: on Eq. (18) within its spread and digits or better, on Eq. (2) within two errors of one seed (0.9991 ±
0.0005 for a reverse ESS of 1.000, 0.9969 ± 0.0024 for a forward one of 0.999). It ends nearer to 1 than our default at
N = 4, and as near, within the errors of one seed, on Eq. (18) and Eq. (2). Dashed in the figure: the default.""",
    "letter not run": """\
A step was measured to take 3.4 s of processor time at N = 16 (about 1.6 s on two cores), so that 10⁴ steps are 9 hours
of it; the paper takes 10⁵ steps at N = 32 and 2.5·10⁵ at N = 64.""",
    "path figures": """\
Figs. 2 to 4, 7 and 8: above, the density exp(−f_t) of the path; below, samples and the velocity V_t, over x₁ and x₂, at
five times, of the first seed. Rings are the target's density. Arrows are scaled in each panel by itself: their lengths
compare within a panel only.""",
}
