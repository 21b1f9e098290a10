"""What a driver cares about, from a few dozen answers to "which of these two routes would you rather take?".

Streets of the centre of Porto (shipped with the package). Pairs of routes with the same origin and destination are chosen by
expected information, or at random; a simulated driver answers, with noise. The learned weights then find routes between
origins and destinations that nobody was asked about.

    python examples/route_preferences.py [questions] [seeds]
"""

import sys

import numpy as np

import fastirl as fi
from fastirl.datasets import load_porto_center

FEATURES = ["length_100m", "left_turn", "right_turn", "highway=primary", "highway=secondary", "highway=service"]
DRIVER = np.array([-1.0, -0.8, -0.2, -0.6, -0.1, -1.5])  # in log odds; 100 m are worth 1


def candidates(net, pairs, rng, each=6):
    """Different routes of each pair of states, more or less direct; the pair is their group."""
    states, group = [], []
    for k, (origin, destination) in enumerate(pairs):
        seen = set()
        for scale in (0.5, 1.0):
            utility = net.features[:, 0] * -2.0 * scale - 0.3
            ptr, arcs = fi.sample_routes(net, utility, origin, destination, each, rng)
            seen |= {tuple(arcs[a:b]) for a, b in zip(ptr[:-1], ptr[1:])}
        for route in sorted(seen)[:each]:
            states.append(net.state_ids[[net.tail[route[0]], *net.head[list(route)]]])
            group.append(k)
    return fi.Trajectories.from_sequences(states, group=group)


def main(n_queries=60, n_seeds=5):
    porto = load_porto_center()
    net = porto.network(features=FEATURES, u_turns="ban")
    true_reward = net.features @ DRIVER
    trips = [(trip.states[0], trip.states[-1]) for trip in porto.trips if len(trip) <= 40]
    rng = np.random.default_rng(0)
    rng.shuffle(trips)
    asked, held_out = trips[:30], trips[30:60]
    pool = candidates(net, asked, rng)
    origins, destinations = zip(*held_out)
    best = [true_reward[route].sum() for route in fi.predict_routes(net, true_reward, origins, destinations)]

    def regret(reward):
        """How much worse than the best its routes are, in metres of driving, on pairs that nobody was asked about."""
        routes = fi.predict_routes(net, np.minimum(reward, -1e-3), origins, destinations)
        return 100 * float(np.mean(best) - np.mean([true_reward[route].sum() for route in routes]))

    print(f"{len(pool)} routes of {len(asked)} pairs; the shortest routes are "
          f"{regret(-net.features[:, 0]):.0f} m worse than the best")
    curves = {}
    for method in ("information", "random"):
        runs = []
        for seed in range(n_seeds):
            learner = fi.PreferenceIRL(fi.LinearReward(l2=0.1), planner="hard")
            driver = fi.SimulatedLabeller(net, true_reward, seed=seed)
            found = fi.ask_and_learn(learner, net, driver, n_queries, seed, candidates=pool, method=method,
                                     evaluate=lambda one: {"regret": regret(one.reward_)})
            runs.append(found.curve["regret"])
        curves[method] = (found.curve["answers"], np.array(runs, float))
        for n, value in zip(found.curve["answers"], np.mean(runs, axis=0)):
            print(f"{method:12s} {n:4d} answers: {value:6.0f} m worse than the best")
    print(found.learner.summary())
    return curves


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
