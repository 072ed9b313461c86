"""What a token costs on disk, as counts that do not depend on the machine."""

import pytest

from tests.bench.storage import measure, written


@pytest.mark.slow
async def test_a_token_costs_little_and_folded_hardly_more_than_its_text(tmp_path):
    found = await measure(tmp_path, 1000)
    assert found["before"]["file_per_token"] < 100
    assert found["after_per_text_byte"] < 1.5


@pytest.mark.slow
async def test_a_token_writes_a_few_pages_into_the_log(tmp_path):
    """Pages of 4096 bytes took 6,000 bytes a token, the pages that are split included."""
    assert await written(tmp_path, sessions=20, tokens=600) < 2600
