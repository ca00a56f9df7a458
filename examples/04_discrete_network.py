"""A graphical Bayesian network: a hidden cause, three tests that may err, and all their tables.

    exposed  ->  infected  ->  three tests          (infected is never observed)

The hidden node is discrete, one for each patient. Methods that follow gradients sum it out: NUTS
by NumPyro's enumeration through funsor, without a word of it in the model.
"""

from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpyro
import numpyro.distributions as dist

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import ppbdl

INFECTED = np.array([0.1, 0.6])  # by exposure: the truth that the data are simulated from
POSITIVE = np.array([[0.05, 0.1, 0.15], [0.9, 0.8, 0.7]])  # by infection, of each test


def simulate(rows: int) -> tuple[ppbdl.Data, np.ndarray]:
    """Patients' exposures and test results; and, for the judge, who was infected."""
    rng = np.random.default_rng(0)
    exposed = rng.integers(0, 2, rows)
    infected = (rng.uniform(size=rows) < INFECTED[exposed]).astype(int)
    tests = (rng.uniform(size=(rows, 3)) < POSITIVE[infected]).astype(int)
    return ppbdl.Data(exposed, tests, target_name="tests", name="clinic"), infected


def clinic(x, y=None):
    """Tables as random variables, and a hidden cause in the plate of the patients."""
    prevalence = numpyro.sample("prevalence", dist.Beta(1, 1).expand([2]).to_event(1))
    # Tests are right more often than not: this says which hidden value is called infected.
    false_alarm = numpyro.sample("false_alarm", dist.Uniform(0, 0.5).expand([3]).to_event(1))
    sensitivity = numpyro.sample("sensitivity", dist.Uniform(0.5, 1).expand([3]).to_event(1))
    with numpyro.plate("patients", x.shape[0]):
        infected = numpyro.sample("infected", dist.Bernoulli(jnp.take(prevalence, x)))
        positive = jnp.where(jnp.expand_dims(infected, -1), sensitivity, false_alarm)
        numpyro.sample("tests", dist.Bernoulli(positive).to_event(1), obs=y)


def diagnose(posterior: ppbdl.Posterior, exposed, tests) -> np.ndarray:
    """P(infected | exposed, tests) of new patients, by Bayes' rule under each draw."""
    sites = {name: np.asarray(values)[..., None, :] for name, values in posterior.draws.items()}

    def of_tests(positive):
        return np.prod(np.where(tests, positive, 1 - positive), axis=-1)

    prior = np.asarray(posterior.draws["prevalence"])[..., exposed]
    ill, well = prior * of_tests(sites["sensitivity"]), (1 - prior) * of_tests(sites["false_alarm"])
    return (ill / (ill + well)).mean(axis=(0, 1))


def main(out="out", draws: int = 500, rows: int = 400) -> dict[str, float]:
    """Fit, read the tables, predict new patients' tests and diagnose them."""
    data, infected = simulate(2 * rows)
    train, new = data.take(np.arange(rows)), data.take(np.arange(rows, 2 * rows))
    posterior = ppbdl.fit(0, clinic, train, ppbdl.NUTS(draws, draws, chains=2))

    # What the exposed will test, before any test; and what the tests then say of the patient.
    expected = ppbdl.predict(1, clinic, posterior, np.array([0, 1]))
    print("P(positive) of the three tests, not exposed and exposed:\n", expected.mean.round(2))
    probability = diagnose(posterior, new.x, new.y)
    hidden = infected[rows:]
    score = ppbdl.log_likelihood(2, clinic, posterior, new)["tests"]  # the hidden node summed out

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    names = ("prevalence", "false_alarm", "sensitivity")
    tables = np.concatenate([np.asarray(posterior.draws[name]) for name in names], axis=-1)
    axes[0].violinplot(tables.reshape(-1, 8), orientation="horizontal", showextrema=False)
    axes[0].plot(np.concatenate([INFECTED, *POSITIVE]), np.arange(1, 9), "kx")
    labels = ("infected | not exposed", "infected | exposed")
    labels += tuple(f"test {t} | {who}" for who in ("healthy", "infected") for t in "ABC")
    axes[0].set(yticks=range(1, 9), yticklabels=labels, title="tables: posterior, and truth (x)")
    axes[1].hist([probability[hidden == 0], probability[hidden == 1]], bins=20, stacked=True)
    axes[1].legend(["healthy", "infected"])
    axes[1].set(title="new patients", xlabel="P(infected | tests)")

    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "04_discrete_network.png", dpi=120)
    plt.close(figure)
    return {
        "error of the tables": float(
            np.abs(tables.mean(axis=(0, 1)) - np.concatenate([INFECTED, *POSITIVE])).max()
        ),
        "accuracy of the diagnosis": float(np.mean((probability > 0.5) == hidden)),
        "log score": float(score.mean()),
    }


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name:28} {value:.3f}")
