"""The examples, and the code in README.md and in the guide, run as a reader would run them."""

import importlib.util
import math
import re
from pathlib import Path

import matplotlib
import pytest

matplotlib.use("Agg")

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
GUIDE = sorted(f"docs/guide/{path.name}" for path in (ROOT / "docs" / "guide").glob("*.md"))


def is_fitted(found):
    # 0.7 degrees is the noise alone, and 4.6 the spread of the day.
    return found["NUTS rmse"] < 2 and found["SVI AutoNormal rmse"] < 3 and found["NUTS gap"] > 1


def is_torn_far_away(found):
    sure = found["Ensemble accuracy"] > 0.8 and found["MC dropout accuracy"] > 0.8
    return sure and found["Ensemble far"] > found["Ensemble near"] >= 0


def is_shrunk(found):
    # Published: mu 4.4, tau 3.6, elpd -30.7; the ranges are what so few draws allow.
    means = (found["NUTS mu"], found["SVI mu"])
    return all(2 < mu < 7 for mu in means) and abs(found["NUTS elpd"] + 30.7) < 1


def is_read_off(found):
    # 0.04 is a table's largest posterior standard deviation here, and 88% are healthy or ill.
    return found["error of the tables"] < 0.2 and found["accuracy of the diagnosis"] > 0.85


def is_learned(found):
    # Before any step: -3.4 nats for the flow, 36 log(1/2) = -25 for the VAE.
    return -3 < found["flow"] < found["flow, exact"] + 0.2 and -25 < found["VAE"] < 0


def is_wary_of_digits(found):
    # Chance is 1/9, and an AUROC of 0.5; so few steps say nothing of sneakers yet.
    names = ("MAP", "VI", "dropout", "ensemble")
    sure = all(found[f"{name}: accuracy"] > 0.5 for name in names)
    return sure and all(found[f"{name}: digits by entropy"] > 0.6 for name in names)


def is_near_its_peers(found):
    # A guess is wrong 90% of the time; dropout of half of the pixels learns slowest.
    dropout = found.pop("dropout, 50")
    return dropout < 60 and all(error < 25 for error in found.values())


def is_less_sure_when_turned(found):
    names = ("point network", "MC dropout", "VI")
    point, dropout, vi = (found[f"{name}: sure and wrong at 90"] for name in names)
    upright = all(value > 0.75 for name, value in found.items() if name.endswith("upright"))
    return upright and max(dropout, vi) < point


def is_wrong_where_uncertain(found):
    return 0.65 < found["plumes: accuracy, T = 500"] < found["plumes: accuracy, certain half"]


def is_near_the_reference(found):
    # The noise is a tenth of y's spread: a constant would be several standard deviations away.
    names = ("ensemble", "anchored ensemble", "Laplace, linear")
    yacht = all(found[f"UCI yacht: {name}, mean_difference"] < 1 for name in names)
    moons = all(found[f"two moons: {name}, agreement"] > 0.85 for name in names)
    drawn, linear = (
        found[f"two moons: Laplace{kind}, total_variation"] for kind in ("", ", linear")
    )
    return yacht and moons and linear < drawn / 2


def is_close_to_the_truth(found):
    # The nearest Gaussian is .78 nats (spirals) to 1.72 away; a divergence is never negative, but
    # for chance.
    means = {name: value for name, value in found.items() if "±" not in name}
    learned = all(mean < 0.6 for name, mean in means.items() if name.endswith("NSF"))
    return learned and all(mean > -4 * found[f"{name}, ±"] for name, mean in means.items())


def is_scored(found):
    # Without x, draws of y itself have a CRPS of 7.1.
    crps, coverage = (
        [value for name, value in found.items() if name.endswith(score)]
        for score in ("CRPS", "coverage")
    )
    return max(crps) < 4 and min(coverage) > 0.5


def is_torn_between_dimensions(found):
    doubt = found["spread elsewhere"] > found["spread at the moons"] > 0
    return doubt and found["16 Gaussians, 2 dimensions"] < found["2 Gaussians, 2 dimensions"]


def is_the_published_gaussian(found):
    # Published: -1366.9, with a standard error of 0.7, of all the test digits; here 1,000 of them.
    right = abs(found["Gaussian, nats on logits"] + 1366.9) < 3 * 0.7 * 10**0.5
    glow = found["Glow, 8 draws, bits per dimension"]
    return right and glow < found["Glow, bits per dimension"] < 5  # uniform pixels take 8


def is_fooled_by_digits(found):
    return found["AUROC by likelihood"] < 0.2 < 0.8 < found["AUROC by typicality"]


def is_better_than_a_mean_image(found):
    # The mean image alone: 207 for the digits.
    digits = max(found["VAE, mnist: -log p"], found["IWAE, mnist: -log p"])
    return digits < 200 and found["VAE, fashion-mnist: -log p"] < 290


def is_regular_by_both_losses(found):
    def of(name, what):
        return found[f"{name}, N(0, I): {what}"]

    collapsed = of("divergence only", "classes") < 2 < 4 < of("both: the VAE", "classes")
    vae = of("both: the VAE", "-log p")
    return collapsed and vae < of("plain autoencoder", "-log p") - 2 and vae < 195


def is_completed(found):
    # Pixels by their own frequencies alone: about 160 and 100 nats.
    return found["1 given: CVAE"] < 155 and found["2 given: CVAE"] < 110


def is_taught_by_few(found):
    # Chance is 0.1.  So short a fit has the classifiers learn, and M2 not yet help them.
    sure = found["network, 100"] > 0.5 and found["M2, 100"] > 0.5
    return sure and found["M1, 100"] > 0.35 and found["M1+M2, 100"] > 0.25


def is_rebuilt_from_sensors(found):
    # One sd is no better than the mean field; intervals that ignore the code cover far less.
    scvae, pod = found["simulated sea, 4: SCVAE"], found["simulated sea, 4: Gappy POD"]
    return scvae < 0.8 and scvae < pod - 0.1 and 0.8 < found["simulated sea, 4: coverage"] < 0.97


def is_novel_by_regret(found):
    return found["AUROC by likelihood regret"] > 0.8 > 0.6 > found["AUROC by bound"]


def is_half_right(found):
    # White paper has 88.6 % of these pixels right.
    return all(found[f"{name}: pixels right"] > 0.89 for name in ("p(z)", "p(z | x)"))


# A small setting of each example, and what must be true of what it gives.
SMALL = {
    "01_regression": ({"steps": 600, "draws": 60}, is_fitted),
    "02_classification": ({"steps": 300}, is_torn_far_away),
    "03_eight_schools": ({"steps": 1500, "draws": 150}, is_shrunk),
    "04_discrete_network": ({"draws": 60, "rows": 200}, is_read_off),
    "05_density_and_vae": ({"steps": 300, "rows": 400, "layers": 2}, is_learned),
    "06_novel_class": ({"folder": "", "epochs": 0.04, "draws": 3}, is_wary_of_digits),
    "07_bayes_by_backprop": (
        {"folder": "mnist", "widths": (50,), "epochs": 2, "rows": 10_000},
        is_near_its_peers,
    ),
    "08_rotated_digit": (
        {"folder": "mnist", "epochs": 3, "rows": 5000, "draws": 20},
        is_less_sure_when_turned,
    ),
    "09_leak_detection": ({"steps": 200, "series": 400}, is_wrong_where_uncertain),
    "10_fidelity": (
        {"steps": 2000, "draws": 50, "only": ("NUTS", "ensemble")},
        is_near_the_reference,
    ),
    "11_flows": ({"steps": 200, "rows": 500, "layers": 4}, is_close_to_the_truth),
    "12_conditional_density": (
        {"sets": ("yacht",), "splits": 1, "steps": 500, "members": 2},
        is_scored,
    ),
    "13_image_flows": (
        {
            "folder": "mnist",
            "steps": (10, 30),
            "layers": 1,
            "depth": 1,
            "width": 8,
            "rows": 1000,
        },
        is_the_published_gaussian,
    ),
    "14_flow_or_mixture": (
        {"steps": 300, "rows": 1000, "pairs": (1,)},
        is_torn_between_dimensions,
    ),
    "15_novelty": (
        {"folder": "", "steps": 40, "members": 2, "rows": 1500, "depth": 1, "width": 8},
        is_fooled_by_digits,
    ),
    "16_vae": (
        {
            "folder": "",
            "epochs": 5,
            "iwae": (3, 5),
            "samples": 50,
            "tests": 200,
            "rows": 6000,
        },
        is_better_than_a_mean_image,
    ),
    "17_three_losses": (
        {"folder": "mnist", "epochs": 10, "rows": 6000, "tests": 200},
        is_regular_by_both_losses,
    ),
    "18_quadrants": (
        {"folder": "", "steps": 400, "rows": 5000, "units": 64, "quadrants": (1, 2)},
        is_completed,
    ),
    "19_semi_supervised": (
        {"folder": "mnist", "rows": 1000, "labels": (100,), "epochs": 20, "units": 64},
        is_taught_by_few,
    ),
    "20_fields": (
        {"counts": (4,), "fields": 3000, "size": 12, "steps": 800},
        is_rebuilt_from_sensors,
    ),
    "21_novel_digits": (
        {"folder": "", "steps": 500, "rows": 5000, "units": 64, "tests": 100, "regret_steps": 50},
        is_novel_by_regret,
    ),
    "22_half_digits": (
        {"folder": "mnist", "steps": 1200, "rows": 5000, "units": 100, "tests": 100},
        is_half_right,
    ),
}


SLOW = (
    "10_fidelity",
    "11_flows",
    "12_conditional_density",
    "13_image_flows",
    "14_flow_or_mixture",
    "15_novelty",
    "16_vae",
    "17_three_losses",
    "18_quadrants",
    "19_semi_supervised",
    "20_fields",
    "21_novel_digits",
    "22_half_digits",
)


def test_every_example_has_a_small_setting():
    assert [path.stem for path in EXAMPLES] == sorted(SMALL)


LONG = [pytest.param(path, marks=pytest.mark.slow) for path in EXAMPLES if path.stem in SLOW]


@pytest.mark.parametrize(
    "path", [path for path in EXAMPLES if path.stem not in SLOW] + LONG, ids=lambda path: path.stem
)
def test_an_example_runs(path, tmp_path, request):
    assert len(path.read_text().splitlines()) < 100
    settings, is_sane = SMALL[path.stem]
    if "folder" in settings:
        shared = request.getfixturevalue("shared_data")
        settings = settings | {"folder": shared / settings["folder"]}
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    found = example.main(out=tmp_path / "pictures", **settings)
    assert all(math.isfinite(value) for value in found.values()), found
    assert is_sane(found), found
    written = sorted((tmp_path / "pictures").iterdir())
    assert written[0].name == f"{path.stem}.png"
    assert all(file.name.startswith(path.stem) for file in written)
    assert all(file.stat().st_size > 10_000 for file in written)


def test_the_examples_read_the_same_at_the_door():
    for path in EXAMPLES:
        text = path.read_text()
        assert 'def main(out="out"' in text, path
        assert text.rstrip().rpartition('if __name__ == "__main__":\n')[2].startswith("    "), path


LONG = {"docs/guide/densities.md"}  # a minute


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page in LONG else ())
        for page in ("README.md", "docs/guide.md", *GUIDE)
    ],
)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    """All python blocks of a page, in order, in one namespace, as one reader would type them."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert blocks
    namespace = {"__name__": "page"}
    for block in blocks:
        line = text[: block.start(1)].count("\n")
        # Blank lines in front, so that a traceback names the page's own line.
        exec(compile("\n" * line + block[1], str(ROOT / page), "exec"), namespace)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_links_of_a_page_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target).exists(), target
