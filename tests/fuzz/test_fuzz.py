"""No bad input brings a traceback or is executed; ``tests/tools/fuzz.py`` tries many more."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.kinds import KINDS, mutated, outcome

EXAMPLES = {"yaml": 20, "flags": 20, "npz": 50, "images": 50, "archives": 50, "checkpoints": 10}


@pytest.mark.parametrize("name", KINDS)
def test_it_works_or_is_refused_with_a_sentence(name):
    kind, seen = KINDS[name], set()

    # Derandomised, so that the suite says the same every time.
    @settings(
        max_examples=EXAMPLES[name],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(kind.strategy)
    def holds(value):
        seen.add(outcome(kind, value))

    holds()
    assert "refused" in seen


@given(st.binary(min_size=1), st.floats(0, 0.99), st.binary(min_size=1, max_size=4))
@settings(deadline=None, derandomize=True, database=None)
def test_mutations_change_what_they_should(content, share, new):
    assert mutated(content, [("flip", share, new)]) != content
    assert len(mutated(content, [("insert", share, new)])) == len(content) + len(new)
    assert content.startswith(mutated(content, [("cut", share, new)]))
    assert len(mutated(content, [("drop", share, new)])) < len(content)
