"""An attribute that is computed at its first access and then kept.

`functools.cached_property` takes a lock at each first access until Python 3.12, which costs more than most values that
a certificate keeps. Without the lock, two threads may compute a value twice. That changes nothing here, because
each value follows from the octets of one certificate.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

_Value = TypeVar("_Value")


class once(Generic[_Value]):  # noqa: N801 -- a decorator, like property
    """A read-only attribute. The instance keeps the value in its `__dict__`, where Python looks first from then on."""

    def __init__(self, compute: Callable[[Any], _Value]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> "once[_Value]": ...
    @overload
    def __get__(self, instance: object, owner: type) -> _Value: ...
    def __get__(self, instance: object | None, owner: type) -> "once[_Value] | _Value":
        if instance is None:
            return self
        value = self._compute(instance)
        instance.__dict__[self._name] = value
        return value
