"""What every test may ask for."""

import functools
import gc
from pathlib import Path

import hypothesis
import jax
import pytest

# A case that compiles takes as long as the machine is busy: no verdict on the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of larger real data sets that lies beside a developer's checkout."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared data sets lie beside developers' checkouts only")
    return folder


@pytest.fixture
def x64():
    """Double precision for one test; single precision, JAX's default, is every other one's."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def room_for_programs():
    """Forget compiled programs in time: each takes memory maps, of which Linux allows 65,530.

    A process that reaches the limit ends in a segmentation fault while XLA compiles.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > 20_000:
        for kept in gc.get_objects():
            is_cache = isinstance(kept, functools._lru_cache_wrapper)
            if is_cache and str(kept.__module__).startswith("ppbdl"):
                kept.cache_clear()
        jax.clear_caches()
        gc.collect()
