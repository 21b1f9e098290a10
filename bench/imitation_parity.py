"""Behaviour cloning, DAgger and maximum causal entropy IRL beside `imitation` on the same gridworld: same answers, then
the clock.

    python bench/imitation_parity.py [--small] [--write]

`imitation` runs in a Python of its own (peer_imitation.py says how to make it); without one this says so and does nothing.

Cloning: a table of logits with a bias and the same penalty, fitted by Adam there and by Newton here. DAgger: the greedy actions
of both are the expert's. IRL: `imitation` also matches the state after the last choice, which its plan does not pay; it is
therefore given the visits that our fit (objective "feature_matching") has up to that state, and must end at its policy. A
gradient step is plan, visits and the difference of features, at `imitation`'s own finite horizon.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pages
import peer_imitation

SIDE, HORIZON, PENALTY = 5, 15, 1e-3
TOLERANCE = {"cloning": 1e-3, "irl": 5e-3}  # of probabilities: single precision and Adam there


def ours(side, horizon):
    """What is given to both, and our answers."""
    import fastirl as fi
    from fastirl.domains import gridworld
    from fastirl.process_likelihood import ProcessModel, match_steps

    world = gridworld(side, wind=0.3, discount=1.0)
    mdp, begin = world.mdp, world.initial_distribution
    soft = fi.soft_value_iteration(mdp, 2.0 * world.reward, "state", horizon=horizon)
    trips = fi.sample_trajectories(mdp, soft.policy, 500, np.random.default_rng(0), horizon=horizon, initial_distribution=begin)
    steps = match_steps(mdp, trips, horizon)
    given = {"dense": np.stack([mdp.transitions[a::5].toarray() for a in range(5)], axis=1), "begin": begin, "horizon": horizon,
             "state": mdp.pair_state[steps.pair], "action": mdp.pair_action[steps.pair], "reward": 2.0 * world.reward}

    # cloning: one weight for each pair and a bias for each action
    n = mdp.n_pairs
    table = np.concatenate([np.eye(n), np.eye(5)[mdp.pair_action]], axis=1)
    clone = fi.BehaviorCloning("logit", l2=PENALTY * steps.pair.size).fit(mdp.with_features(table), trips)
    # DAgger: an expert for all times
    best = fi.value_iteration(mdp.with_discount(0.9), world.reward, "state")
    dagger = fi.DAgger(best, rollouts=40, max_steps=horizon, n_iterations=10, rng=np.random.default_rng(1),
                       initial_distribution=begin).fit(mdp)
    given["expert"] = mdp.pair_action[np.flatnonzero(best.policy)]
    given["tie"] = np.array([np.ptp(np.sort(q)[-2:]) < 1e-9 for q in np.split(best.q, mdp.pair_ptr[1:-1])])
    # maximum causal entropy
    irl = fi.MaxEntIRL(fi.LinearReward(l2=0.05), objective="feature_matching", horizon=horizon).fit(mdp, trips)
    visits = fi.visitation_frequencies(mdp, irl.policy(), begin, horizon=horizon).state_by_time
    given["visits"] = visits.sum(axis=0)
    answers = {"cloning": clone.policy().reshape(-1, 5), "dagger": dagger.policy().reshape(-1, 5),
               "irl": irl.policy().reshape(horizon, -1, 5)}

    def step(world, horizon, trips, rounds):
        model = ProcessModel(world.mdp, match_steps(world.mdp, trips, horizon), "feature_matching", horizon, 1e-8, 1)
        reward, seconds = world.reward[world.mdp.pair_state], []
        for _ in range(rounds):
            begin = time.process_time()
            world.mdp.features.T @ model.at(reward)["gradient"]
            seconds.append(time.process_time() - begin)
        return float(np.median(seconds))

    return given, answers, step


def speed_problem(side, horizon):
    import fastirl as fi
    from fastirl.domains import gridworld

    world = gridworld(side, wind=0.3, discount=1.0)
    trips = fi.sample_trajectories(world.mdp, None, 20, np.random.default_rng(0), horizon=horizon,
                                   initial_distribution=world.initial_distribution)
    given = {"dense": np.stack([world.mdp.transitions[a::5].toarray() for a in range(5)], axis=1),
             "begin": world.initial_distribution, "horizon": horizon, "reward": world.reward}
    return world, trips, given


def child(task, rounds, given):
    """The answers of `imitation`, from its own Python."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("given.npz", "answers.npz")]
        np.savez(paths[0], **given)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1",
                           HF_DATASETS_DISABLE_PROGRESS_BARS="1")
        subprocess.run([os.environ[peer_imitation.VARIABLES["imitation"]], __file__, "--child", task, str(rounds), *paths],
                       check=True, env=environment, cwd=folder)
        with np.load(paths[1]) as read:
            return dict(read)


def main(small, write=False):
    reason = peer_imitation.missing("imitation")
    if reason:
        print(f"skipped: {reason}")
        return
    given, answers, step = ours(SIDE, HORIZON)
    theirs = child("answers", 1, given)
    gap = {name: float(np.abs(theirs[name] - answers[name]).max()) for name in ("cloning", "irl")}
    for name, limit in TOLERANCE.items():
        print(f"{name}: probabilities differ by at most {gap[name]:.1e} (asked: {limit:g})")
        assert gap[name] <= limit
    clear = ~given["tie"]
    for name, policy in (("here", answers["dagger"]), ("imitation", theirs["dagger"])):
        same = policy.argmax(axis=1)[clear] == given["expert"][clear]
        print(f"DAgger, {name}: greedy action is the expert's in {same.sum()} of {clear.sum()} states "
              "where it is the only best one")
        assert same.all()
    side, horizon = (16, 20) if small else (32, 64)
    world, trips, problem = speed_problem(side, horizon)
    rounds = 3 if small else 5
    peer = child("step", rounds, problem)
    mine = step(world, horizon, trips, 10 * rounds)
    from fastirl.process_likelihood import ProcessModel, match_steps

    steps = match_steps(world.mdp, trips, horizon)
    own = ProcessModel(world.mdp, steps, "feature_matching", horizon, 1e-8, 1).at(world.reward[world.mdp.pair_state])["gradient"]
    seen = np.bincount(steps.pair, minlength=world.mdp.n_pairs)
    starts = np.bincount(steps.start, minlength=world.mdp.n_states)
    assert abs((seen - own).sum() - starts.sum() * horizon) < 1e-6
    theirs = float(np.median(peer["seconds"]))
    print(f"one gradient step, {side * side:,} states, horizon {horizon}: {1e3 * mine:.2f} ms here, {1e3 * theirs:.1f} ms there: "
          f"{theirs / mine:.0f} times faster (CPU seconds, one thread, medians)")
    if not small:
        assert theirs > 50 * mine
    if write:
        pages.headlines([(f"a MaxEnt gradient step at horizon {horizon}, {side * side:,} states", "imitation",
                          pages.times(theirs / mine))])


# -- below: in the child


def _child_main(task, rounds, path, output):
    import tempfile as temporary
    from types import SimpleNamespace

    import gymnasium
    import torch
    from imitation.algorithms import bc, mce_irl
    from imitation.algorithms.dagger import SimpleDAggerTrainer
    from imitation.policies.base import NonTrainablePolicy
    from imitation.rewards import reward_nets
    from imitation.util import logger
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.common.vec_env import DummyVecEnv

    torch.manual_seed(0)
    torch.set_num_threads(1)
    with np.load(path) as read:
        given = dict(read)
    dense, horizon = given["dense"], int(given["horizon"])
    n = dense.shape[0]
    quiet = logger.configure(temporary.mkdtemp(), [])
    states, actions = gymnasium.spaces.Discrete(n), gymnasium.spaces.Discrete(5)
    environment = SimpleNamespace(horizon=horizon, state_dim=n, action_dim=5, transition_matrix=dense,
                                  reward_matrix=given["reward"], initial_state_dist=given["begin"], observation_matrix=np.eye(n),
                                  state_space=states, action_space=actions, observation_space=gymnasium.spaces.Box(0, 1, (n,)))

    def learner(visits, rate, **options):
        net = reward_nets.BasicRewardNet(gymnasium.spaces.Box(0, 1, (n,)), actions, use_action=False, use_next_state=False,
                                         use_done=False, hid_sizes=[])
        return mce_irl.MCEIRL(visits, environment, net, rng=np.random.default_rng(0), optimizer_kwargs={"lr": rate},
                              log_interval=None, custom_logger=quiet, **options)

    if task == "step":
        model = learner(np.full(n, (horizon + 1) / n), 1e-3)
        table, seconds = torch.eye(n), []
        for _ in range(int(rounds)):
            begin = time.process_time()
            model._train_step(table)
            seconds.append(time.process_time() - begin)
        np.savez(output, seconds=seconds)
        return

    def policy():
        return ActorCriticPolicy(states, actions, lambda _: 1e-2, net_arch=[])

    def probabilities(net):
        with torch.no_grad():
            return net.get_distribution(torch.arange(n)).distribution.probs.numpy().reshape(n, 5)

    size = given["state"].size
    transitions = [{"obs": torch.as_tensor(given["state"].astype(np.int64)),
                    "acts": torch.as_tensor(given["action"].astype(np.int64))}]
    cloned = bc.BC(observation_space=states, action_space=actions, rng=np.random.default_rng(0), policy=policy(),
                   demonstrations=transitions, batch_size=size, optimizer_kwargs={"lr": 1e-2}, ent_weight=0.0, l2_weight=PENALTY,
                   custom_logger=quiet)
    cloned.train(n_epochs=1500, progress_bar=False)

    class Grid(gymnasium.Env):
        observation_space, action_space = states, actions

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.at, self.time = int(self.np_random.choice(n, p=given["begin"])), 0
            return self.at, {}

        def step(self, action):
            self.at, self.time = int(self.np_random.choice(n, p=dense[self.at, int(action)])), self.time + 1
            return self.at, 0.0, False, self.time >= horizon, {}

    class Expert(NonTrainablePolicy):
        def _choose_action(self, obs):
            return given["expert"][int(obs)]

    inner = bc.BC(observation_space=states, action_space=actions, rng=np.random.default_rng(0), policy=policy(), batch_size=64,
                  optimizer_kwargs={"lr": 3e-2}, ent_weight=0.0, custom_logger=quiet)
    trainer = SimpleDAggerTrainer(venv=DummyVecEnv([Grid]), scratch_dir=temporary.mkdtemp(),
                                  expert_policy=Expert(states, actions), rng=np.random.default_rng(0), bc_trainer=inner,
                                  custom_logger=quiet)
    trainer.train(6000, rollout_round_min_episodes=20, rollout_round_min_timesteps=300,
                  bc_train_kwargs={"n_epochs": 8, "progress_bar": False})
    irl = learner(given["visits"], 0.05, linf_eps=0.0, grad_l2_eps=2e-4)
    for rate in (0.1, 0.02, 0.005):
        for group in irl.optimizer.param_groups:
            group["lr"] = rate
        irl.train(max_iter=1500)
    reward = irl.reward_net(torch.eye(n), None, None, None).detach().numpy().reshape(-1)
    _, _, chosen = mce_irl.mce_partition_fh(environment, reward=reward)
    np.savez(output, cloning=probabilities(cloned.policy), dagger=probabilities(inner.policy), irl=chosen)


if __name__ == "__main__":
    if "--child" in sys.argv:
        at = sys.argv.index("--child")
        _child_main(*sys.argv[at + 1:at + 5])
    else:
        main("--small" in sys.argv, "--write" in sys.argv)
