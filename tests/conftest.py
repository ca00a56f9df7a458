"""What every test may ask for."""

from pathlib import Path

import jax
import pytest


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
