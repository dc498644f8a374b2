"""A usual mistake in one exercise of each notebook, which a student makes before the right answer, that of the solution."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """A usual wrong answer to an exercise.

    Attributes:
        exercise: its number.
        right: words of the solution.
        wrong: what stands in their place.
        words: what the check says about it.
    """

    exercise: str
    right: str
    wrong: str
    words: str


MISTAKES = {
    "00": Mistake("0.1", "z_mass = 91", "z_mass = 80", "That is the W boson"),
    "01": Mistake("1.3", '"docker"', '"podman"', "This node has `docker`"),
    "02": Mistake("2.1", 'reported["default_model_filename"]', '"config.pbtxt"', "Look for `default_model_filename`"),
    "03": Mistake("3.3", '"shape": [16]', '"shape": [1, 16]', "The server says:"),
    "04": Mistake("4.3", "np.mean(of_higgs >= cut)", "np.mean(of_higgs < cut)", "the fraction below the cut"),
    "05": Mistake("5.2", "part = total[slowest] / total.sum()", "part = total[slowest]", "time in milliseconds"),
    "06": Mistake("6.1", 'model="particlenet_AK4"', 'model="add_sub"', "That is the line of `add_sub`"),
    "07": Mistake("7.2", 'hundred["latency_p95_us"]', 'by_batch[10]["latency_p95_us"]', "from 1 to 10 jets"),
    "08": Mistake("8.1", '["latency_p95_us"] / 1000', '["latency_p95_us"]', "That is in microseconds"),
    "09": Mistake("9.5", "safe = [name for name in variants if lowest[name] > -0.001]", 'safe = ["fp8"]', "Expected names among"),
    "10": Mistake("10.2", "scaling.plan(traffic, one, budget_ms).servers", "0.5", "should be a whole number of servers"),
    "11": Mistake("11.3", "(2 * 450 + 300) * 2**-24", "1e-3", "A network that computes with 16 bits would pass"),
}
