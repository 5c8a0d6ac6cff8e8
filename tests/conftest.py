from pathlib import Path

import pytest

from tests.openssl import OpenSSL


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSSL:
    """The openssl command line in an empty folder."""
    folder = tmp_path / "openssl"
    folder.mkdir()
    return OpenSSL(folder)
