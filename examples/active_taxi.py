"""Learning to drive a taxi from answers to "which of these two rides is better?".

gymnasium's Taxi-v3: pick up a passenger and bring them where they want to go. The learner never sees the environment's
reward. It shows two clips of a ride to a (simulated, noisy) person, learns a reward from the answers, plans with it, and
shows clips of what it would now do. Which two it shows is chosen by expected information, or at random. With matplotlib it
draws the curves into active_taxi.png.

    python examples/active_taxi.py [questions] [seeds] [all]

With "all" questions are chosen by volume removal and by disagreement too.
"""

import sys

import gymnasium
import numpy as np

import fastirl as fi

CLIP = 25  # choices that a person watches
SPOTS = "RGYB"
NAMES = ["step", "north", "south", "east", "west", "bump", "no one to pick up", "drop on the way", "carry",
         *[f"{what} at {spot}" for what in ("pick up", "deliver", "drop, unwanted,") for spot in SPOTS],
         *[f"cell {row}, {col}" for row in range(5) for col in range(5)]]
LANDMARKS = [(0, 0), (0, 4), (4, 0), (4, 3)]


def describe(env, mdp):
    """(n_pairs, 46) what a passer-by would notice of a step. None of it says what is good."""
    features = np.zeros((mdp.n_pairs, len(NAMES)))
    column = {name: j for j, name in enumerate(NAMES)}
    successor = mdp.indices[mdp.indptr[:-1]]  # the world is deterministic
    for pair, (state, action) in enumerate(zip(mdp.pair_state, mdp.pair_action)):
        row, col, passenger, destination = env.unwrapped.decode(int(state))
        spot = next((k for k, place in enumerate(LANDMARKS) if place == (row, col)), None)
        seen = ["step", f"cell {row}, {col}"] + ["carry"] * (passenger == 4)
        if action < 4:
            seen += [("south", "north", "east", "west")[action]] + ["bump"] * int(successor[pair] == state)
        elif action == 4:
            seen.append(f"pick up at {SPOTS[spot]}" if spot is not None and passenger == spot else "no one to pick up")
        elif passenger == 4 and spot is not None:
            seen.append(f"{'deliver' if destination == spot else 'drop, unwanted,'} at {SPOTS[spot]}")
        else:
            seen.append("drop on the way")
        features[pair, [column[name] for name in seen]] = 1.0
    return features


class Judge:
    """How well a policy drives, by the environment's own reward: what the learner is never told."""

    def __init__(self, mdp):
        self.mdp, self.reward, self.start = mdp, mdp.reward_vector(mdp.reward, "pair"), mdp.initial_distribution
        self.best = self.drives(fi.value_iteration(mdp, self.reward, "pair").policy)

    def drives(self, policy):
        """Share of rides that arrive within 200 steps, and the mean return of a ride."""
        chosen = np.zeros(self.mdp.n_states, int)
        chosen[self.mdp.pair_state[policy > 0.5]] = np.flatnonzero(policy > 0.5)
        state, total = np.flatnonzero(self.start > 0), 0.0
        weight = self.start[state] / self.start.sum()
        for _ in range(200):
            going = ~self.mdp.terminal[state]
            total += float(weight[going] @ self.reward[chosen[state[going]]])
            state = np.where(going, self.mdp.indices[self.mdp.indptr[chosen[state]]], state)
        return {"arrived": float(weight @ self.mdp.terminal[state]), "return": total}


WAYS = {"chosen by information": ("information", 10), "at random": ("random", 10),
        "at random, clips of random rides only": ("random", 0)}


def main(n_queries=200, n_seeds=5):
    env = gymnasium.make("Taxi-v3" if "Taxi-v3" in gymnasium.registry else "Taxi-v4")  # the same world: v4 is the newer name
    mdp = fi.MDP.from_gymnasium(env, discount=0.97)
    judge = Judge(mdp)
    mdp = mdp.with_features(describe(env, mdp), NAMES, features_on="pair")
    anywhere = np.where(mdp.terminal, 0.0, 1.0)  # clips begin in the middle of a ride
    curves = {}
    for name, (method, refresh) in WAYS.items():
        runs = []
        for seed in range(n_seeds):
            learner = fi.PreferenceIRL(fi.LinearReward(l2=0.1), planner="hard")
            person = fi.SimulatedLabeller(mdp, judge.reward, temperature=6.0, indifference=0.5, seed=seed)
            found = fi.ask_and_learn(
                learner, mdp, person, n_queries, seed, method=method, refresh=refresh, horizon=CLIP, n_candidates=40,
                initial_distribution=anywhere / anywhere.sum(), evaluate=lambda one: judge.drives(one.policy()), evaluate_every=5)
            runs.append([found.curve[measure] for measure in ("answers", "arrived", "return")])
        curves[name] = np.array(runs, float)
        for asked in (n_queries // 2, n_queries):
            arrived, total = curves[name][:, 1:, np.searchsorted(curves[name][0, 0], asked)].mean(axis=0)
            print(f"{name:38s} {asked:4d} questions: {arrived:6.1%} of rides arrive, mean return {total:8.2f}")
        # after the last evaluation below 95%
        late = [run[0][np.flatnonzero(run[1] < 0.95).max(initial=-1) + 1] if run[1][-1] >= 0.95 else np.inf
                for run in curves[name]]
        median, first, last = (f"{n:g}" if np.isfinite(n) else "never" for n in (np.median(late), min(late), max(late)))
        after = f"after {median} questions (median of {n_seeds}; {first} to {last})" if median != "never" else (
            f"in {np.isfinite(late).sum()} of {n_seeds} runs")
        print(f"{'':38s} 95% arrive for good {after}")
        if method == "information":
            print(found.learner.summary())
    best = judge.best
    print(f"{'the best policy':38s} {'':15s} {best['arrived']:6.1%} of rides arrive, mean return {best['return']:8.2f}")
    return curves, judge


def draw(curves, judge, path="active_taxi.png"):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from fastirl.preference_plots import plot_curves

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.8))
    for at, what, ax in ((1, "share of rides that arrive", axes[0]), (2, "mean return of a ride", axes[1])):
        best = judge.best["arrived" if at == 1 else "return"]
        plot_curves({name: (runs[0, 0], runs[:, at]) for name, runs in curves.items()}, ax, band="quantile", level=0.8,
                    xlabel="questions answered", ylabel=what, reference={"the best policy": best})
        handles, words, told = *ax.get_legend_handles_labels(), ax.get_legend().get_title().get_text()
        ax.get_legend().remove()
    lowest = min(runs[:, 2].mean(axis=0).min() for runs in curves.values())
    if lowest < -260:  # a first policy or two that drives into walls would take most of the picture
        axes[1].set_ylim(-260, 30)
        axes[1].annotate(f"mean down to {lowest:.0f}", (0.085, 0.03), xycoords="axes fraction", fontsize=8)
    figure.legend(handles, words, loc="lower center", ncol=4, fontsize=9, frameon=False)
    figure.suptitle(f"Learning to drive a taxi from noisy answers: {told}", fontsize=10.5)
    figure.tight_layout(rect=(0, 0.06 if len(words) <= 4 else 0.1, 1, 1))
    figure.savefig(path, dpi=130)
    print(f"saved {path}")


if __name__ == "__main__":
    if "all" in sys.argv:
        WAYS.update({"chosen by volume removal": ("volume", 10), "chosen by disagreement": ("disagreement", 10)})
    found = main(*(int(number) for number in sys.argv[1:] if number != "all"))
    try:
        draw(*found)
    except ImportError:
        print("no picture: matplotlib is not installed")
