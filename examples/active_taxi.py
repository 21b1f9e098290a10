"""Learning to drive a taxi from answers to "which of these two rides is better?".

gymnasium's Taxi-v3: pick up a passenger and bring them where they want to go. The learner never sees the environment's
reward. It shows two clips of a ride to a (simulated, noisy) person, learns a reward from the answers, plans with it, and
shows clips of what it would now do. Which two it shows is chosen by expected information, or at random. With matplotlib it
draws the curves into active_taxi.png.

    python examples/active_taxi.py [questions] [seeds]
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
        self.best = self.drives(fi.value_iteration(mdp, self.reward, "pair").policy)["return"]

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


def main(n_queries=200, n_seeds=5):
    env = gymnasium.make("Taxi-v3" if "Taxi-v3" in gymnasium.registry else "Taxi-v4")  # the same world: v4 is gymnasium's newer name
    mdp = fi.MDP.from_gymnasium(env, discount=0.97)
    judge = Judge(mdp)
    true_reward = judge.reward
    mdp = mdp.with_features(describe(env, mdp), NAMES, features_on="pair")
    anywhere = np.where(mdp.terminal, 0.0, 1.0)  # clips begin in the middle of a ride
    ways = {"chosen by information": ("information", 10), "at random": ("random", 10), "at random, of random rides": ("random", 0)}
    curves = {}
    for name, (method, refresh) in ways.items():
        runs = []
        for seed in range(n_seeds):
            learner = fi.PreferenceIRL(fi.LinearReward(l2=0.1), planner="hard")
            person = fi.SimulatedLabeller(mdp, true_reward, temperature=4.0, indifference=0.5, seed=seed)
            found = fi.ask_and_learn(
                learner, mdp, person, n_queries, seed, method=method, refresh=refresh, horizon=CLIP, n_candidates=40,
                initial_distribution=anywhere / anywhere.sum(), evaluate=lambda one: judge.drives(one.policy()))
            runs.append([found.curve[measure] for measure in ("answers", "arrived", "return")])
        curves[name] = np.array(runs, float)
        last = curves[name][:, 1:, -1].mean(axis=0)
        print(f"{name:28s} after {n_queries} questions: {last[0]:6.1%} of rides arrive, mean return {last[1]:8.2f}")
    print(f"{'the best policy':28s} {'':24s} 100.0% of rides arrive, mean return {judge.best:8.2f}")
    print(found.learner.summary())
    return curves, judge


if __name__ == "__main__":
    curves, judge = main(*map(int, sys.argv[1:]))
