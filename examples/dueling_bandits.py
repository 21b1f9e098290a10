"""Which two to compare next: regret of dueling bandits, with a Condorcet winner and in a circle.

    python examples/dueling_bandits.py [picture.png]

Left: eight items with Bradley-Terry preferences, so that one beats all others. Middle and right: three items beat each other in a
circle and both others besides; there is no Condorcet winner, but three Copeland winners and one Borda winner. Random duels pay
the same for ever; a bandit pays while it learns. Beat the Mean is too cautious to drop anybody in so few duels.
"""

import sys
from functools import partial

import numpy as np

import fastirl as fi
from fastirl.preference_plots import plot_regret, plot_win_matrix

HORIZON, RUNS = 10_000, 6
BANDITS = {
    "random duels": fi.RandomDuels,
    "Beat the Mean": partial(fi.BeatTheMean, horizon=HORIZON),
    "RUCB": fi.RUCB,
    "Copeland confidence bound": fi.CopelandConfidenceBound,
    "double Thompson sampling": fi.DoubleThompsonSampling,
}


def bradley_terry_preferences(strength):
    """(n, n) P(row ≻ column) = 1 / (1 + exp(−(r_row − r_column)))."""
    strength = np.asarray(strength, float)
    return 1 / (1 + np.exp(strength - strength[:, None]))


def circle_preferences():
    """a beats b beats c beats a; each of them beats d and e."""
    p = np.full((5, 5), 0.5)
    for winner, loser, share in ((0, 1, 0.75), (1, 2, 0.65), (2, 0, 0.6), (0, 3, 0.7), (0, 4, 0.7), (1, 3, 0.8), (1, 4, 0.8),
                                 (2, 3, 0.9), (2, 4, 0.9), (3, 4, 0.6)):
        p[winner, loser], p[loser, winner] = share, 1 - share
    return fi.PairwiseMatrix.from_probabilities(p, list("abcde"))


def main(picture=None):
    ladder = bradley_terry_preferences(np.linspace(1.4, -1.4, 8))
    circle = circle_preferences()
    print("In a circle:", fi.condorcet_winner(circle), fi.copeland(circle), fi.borda(circle), fi.smith_set(circle), sep="\n")
    simulations = {}
    for name, preference in (("ladder", ladder), ("circle", circle)):
        simulations[name] = fi.simulate_duels(BANDITS, preference, HORIZON, RUNS, np.random.default_rng(0))
        print(f"\n{name}\n{simulations[name]}", flush=True)
    if picture:
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
        figure, panels = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
        plot_regret(simulations["ladder"], "condorcet", panels[0], log="xy", title="Eight items, Bradley-Terry")
        plot_win_matrix(circle, panels[1], order="given", colorbar=False)
        plot_regret(simulations["circle"], "copeland", panels[2], title="A circle of three above two others")
        for ax in panels[::2]:  # Beat the Mean pays as random duels do: both lines are to be seen
            for lines in (ax.get_lines(), ax.get_legend().get_lines()):
                lines[list(BANDITS).index("Beat the Mean")].set_linestyle((0, (4, 4)))
        figure.savefig(picture, dpi=120)
        print(f"\nsaved {picture}")
    return simulations


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "dueling_bandits.png")
    except ImportError:
        print("no picture: matplotlib is not installed")
