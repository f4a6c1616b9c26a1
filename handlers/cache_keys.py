"""Keys and tags of a cached function's calls.

Owns: how the arguments of a call become its key and its tags. Knows nothing of the cache.
"""

from __future__ import annotations

import functools
import inspect
import string
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeAlias

from pipeline.core.cachekey import AS_IS, freeze
from pipeline.errors import UsageError

Tags: TypeAlias = "str | Iterable[str] | None"
_PLAIN = inspect.Parameter.POSITIONAL_OR_KEYWORD
_NONE = inspect.Parameter.empty


class Call:
    """One async function that is cached. templates: tags over its arguments; None when its result tells
    them. has_name: it has the same name in every process, and no other function has it.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        templates: frozenset[str] | None,
        key: Callable[..., Hashable] | None = None,
    ) -> None:
        name = getattr(function, "__qualname__", repr(function))
        module = getattr(function, "__module__", "")
        self.name = f"{module}.{name}"
        self.has_name = module != "__main__" and "<locals>" not in name
        if not inspect.iscoroutinefunction(function):
            raise UsageError(f"{name} is not an async function", hint="Make it async.")
        self._function = function
        self._templates = templates
        self._key = key
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters
        self._names = tuple(parameters)
        self._plain = all(parameter.kind is _PLAIN for parameter in parameters.values())
        self._defaults = {
            name: parameter.default for name, parameter in parameters.items() if parameter.default is not _NONE
        }
        for template in templates or ():
            for field in fields_of(template):
                if field not in parameters:
                    raise UsageError(
                        f"the tag {template!r} of {name} names {field!r}, which is no argument of it",
                        hint=f"Arguments are: {', '.join(self._names) or 'none'}.",
                    )

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        """The same for every way to write the same call. Raises UsageError for arguments without a plain
        value.
        """
        if self._key is not None:
            return (self._function, self._key(*args, **kwargs))
        if self._plain and not kwargs and len(args) == len(self._names):
            for value in args:
                if type(value) not in AS_IS:
                    break
            else:  # a tenth of what the general way costs, for most calls that there are
                return (self._function, *args)
        return (self._function, *map(freeze, self._bound(args, kwargs).values()))

    def tags(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> frozenset[str] | None:
        """The tags of one call. Booleans and None are written as Postgres writes them."""
        if self._templates is None:
            return None
        bound = {name: _written(value) for name, value in self._bound(args, kwargs).items()}
        return frozenset(template.format_map(bound) for template in self._templates)

    def dressed(self, wrapper: Callable[..., Any]) -> Callable[..., Any]:
        """The wrapper with the function's name, signature and docstring."""
        # a function may be cached twice, with other tags: its two callers are told apart in the keys
        self._function = functools.wraps(self._function)(wrapper)
        return self._function

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if self._plain:  # a fifth of what binding costs
            bound = dict(zip(self._names, args, strict=False))
            used = len(args)
            for name in self._names[used:]:
                if name in kwargs:
                    bound[name] = kwargs[name]
                    used += 1
                elif name in self._defaults:
                    bound[name] = self._defaults[name]
            if len(bound) == len(self._names) and used == len(args) + len(kwargs) <= len(self._names):
                return bound
        binding = self._signature.bind(*args, **kwargs)
        binding.apply_defaults()
        return binding.arguments


def fields_of(template: str) -> list[str]:
    """The arguments that a template names, without what follows a dot or a bracket. Raises UsageError."""
    try:
        parts = [field for _text, field, _spec, _conversion in string.Formatter().parse(template)]
    except ValueError as error:
        raise UsageError(
            f"the tag {template!r} cannot be read: {error}", hint='Write it like "orders:{order_id}".'
        ) from None
    return [field.split(".")[0].split("[")[0] for field in parts if field is not None]


def _written(value: Any) -> Any:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else value


def tag_set(tags: Tags) -> frozenset[str] | None:
    """Tags as they were written, as a set; None stays None. Raises UsageError for what is none."""
    if tags is None:
        return None
    found: frozenset[Any]
    found = frozenset(tags if isinstance(tags, Iterable) and not isinstance(tags, str) else (tags,))
    for tag in found:
        if not isinstance(tag, str) or not tag:
            raise UsageError(f"{tag!r} is no tag", hint='Tags are texts, such as "orders" or "orders:7".')
    return found
