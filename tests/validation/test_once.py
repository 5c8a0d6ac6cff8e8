"""An attribute that is computed at its first access and then kept."""

import pytest

from shared.x509.once import once


class Counter:
    """Counts how often its attribute is computed."""

    def __init__(self, value: str | None) -> None:
        self.value = value
        self.count = 0

    @once
    def kept(self) -> str | None:
        """The value."""
        self.count += 1
        return self.value


@pytest.mark.parametrize("value", ["a value", "", None])
def test_a_value_is_computed_at_the_first_access_only(value: str | None) -> None:
    counter = Counter(value)
    assert counter.count == 0
    assert [counter.kept, counter.kept] == [value, value]
    assert counter.count == 1


def test_each_instance_has_its_own_value() -> None:
    assert [Counter("one").kept, Counter("two").kept] == ["one", "two"]


def test_the_class_has_the_documentation() -> None:
    assert Counter.kept.__doc__ == "The value."
