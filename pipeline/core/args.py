"""Arguments of a task: which there are, of what types, and how JSON becomes them.

Owns: the types read from a function's signature, the check of arguments and their conversion. Knows neither
jobs nor how a task is run.

msgspec reads what it knows (plain types, dates, UUID, Decimal, enums, Structs, dataclasses, typed dicts).
Anything else goes to pydantic, which is imported only then.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import PurePath
from types import SimpleNamespace
from typing import Any, get_type_hints

import msgspec
from msgspec import inspect as shape

from pipeline.errors import TaskError

MOST_BYTES = 1_048_576  # pipeline.most_bytes() in SQL
Convert = Callable[[Any], Any]
Bind = Callable[[Mapping[str, Any]], dict[str, Any]]

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_WHERE = re.compile(r"(.*) - at `(?:key in )?\$?\.?(.*)`", re.DOTALL)


def to_json(value: Any) -> bytes:
    """JSON of arguments, pydantic models and paths included. Raises TypeError, ValueError and their kin."""
    return msgspec.json.encode(value, enc_hook=_encode)


def args_json(name: str, args: Mapping[str, Any]) -> bytes:
    """JSON of the arguments for the task of that name. Raises TaskError."""
    try:
        return to_json(dict(args))
    except (TypeError, ValueError, UnicodeError, RecursionError) as error:
        raise TaskError(
            f"the arguments for task {name} are not JSON: {error}",
            hint="Pass ids and plain values; let the task read the rest.",
        ) from None


def refuse_large(what: str, text: bytes) -> None:
    """Raises TaskError for JSON that is too long for a job. what: in the plural, as the message begins."""
    size = printed_size(text)
    if size > MOST_BYTES:
        raise TaskError(
            f"{what} are {size:,} bytes of JSON; a job takes {MOST_BYTES:,}",
            hint="Put the data in a table and pass its id.",
        )


def printed_size(text: bytes) -> int:
    """The length of JSON as Postgres prints it: with a space after each comma and colon.

    They are counted only where they matter: none doubles a text, and one that is too long already is.
    """
    if not MOST_BYTES // 2 < len(text) <= MOST_BYTES:
        return len(text)
    bare = _STRING.sub(b"", text)
    return len(text) + bare.count(b",") + bare.count(b":")


class Arguments:
    """The arguments of one function, without the job, which comes first.

    anything: the function takes none by name; the jobs may have any.
    bind: turns a job's args, fresh from JSON, into what the function takes; None when there is nothing to
    convert. Raises msgspec.ValidationError or ValueError. It is made by `prepare`, as annotations may name
    what a module defines further down.
    """

    def __init__(
        self, function: Callable[..., Any], signature: inspect.Signature, *, anything: bool = False
    ) -> None:
        parameters = [] if anything else list(signature.parameters.values())
        self._function = function
        self._first = parameters[0].name if parameters else ""
        self._named = [p for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self._more = next((p for p in parameters[1:] if p.kind is p.VAR_KEYWORD), None)
        self.names = frozenset(p.name for p in self._named)
        self.required = frozenset(p.name for p in self._named if p.default is p.empty)
        self.open = anything or self._more is not None
        self.ready = False
        self.bind: Bind | None = None

    def takes(self, name: str) -> bool:
        """Whether there may be an argument of that name."""
        return name in self.names or (self.open and name != self._first)

    def prepare(self) -> None:
        """Read the annotations. Raises TaskError for one that cannot be read, or that JSON cannot become."""
        if self.ready:
            return
        types: dict[str, Any] = {}
        others: dict[str, Convert] = {}
        for parameter in self._named:
            kind = self._annotation(parameter)
            if _is_plain(kind):
                types[parameter.name] = kind
            else:
                types[parameter.name] = Any
                others[parameter.name] = _by_pydantic(parameter.name, kind)
        more = self._more and self._annotation(self._more)
        if others or more not in (None, Any) or any(kind is not Any for kind in types.values()):
            self.bind = self._binder(types, others, Any if more is None else more)
        self.ready = True

    def problem(self, args: Mapping[str, Any]) -> str:
        """What is wrong with these arguments, as values or as plain JSON; '' is nothing."""
        missing = self.required - args.keys()
        if missing:
            names = ", ".join(repr(p.name) for p in self._named if p.name in missing)
            return f"missing a required argument: {names}"
        unknown = [name for name in args if not self.takes(name)]
        if unknown:
            return f"got an unexpected keyword argument {unknown[0]!r}"
        self.prepare()
        if self.bind is None:
            return ""
        try:
            self.bind(args)
        except (msgspec.ValidationError, ValueError, TypeError):
            return self._problem_as_json(self.bind, args)
        return ""

    def _problem_as_json(self, bind: Bind, args: Mapping[str, Any]) -> str:
        """A value of another type may still be right once it is JSON, which is what the task gets."""
        try:
            plain = msgspec.json.decode(to_json(dict(args)))
        except (TypeError, ValueError, RecursionError):
            return ""  # that it is no JSON is told where it is encoded
        try:
            bind(plain)
        except ValueError as error:  # msgspec.ValidationError is one
            return explain(error)
        return ""

    def _binder(self, types: dict[str, Any], others: dict[str, Convert], more: Any) -> Bind:
        model = msgspec.defstruct(
            "Arguments",
            [(p.name, types[p.name], *_default(p)) for p in self._named],
            kw_only=True,
            gc=False,
            forbid_unknown_fields=not self.open,
        )
        convert, as_dict = msgspec.convert, msgspec.structs.asdict

        def bind(args: Mapping[str, Any]) -> dict[str, Any]:
            return as_dict(convert(args, model, str_keys=True))

        if not others and not self.open:
            return bind

        def bind_all(args: Mapping[str, Any]) -> dict[str, Any]:
            bound = bind(args)
            for name, read in others.items():
                if name in args:
                    bound[name] = read(args[name])
            for name in args.keys() - bound.keys():
                try:
                    bound[name] = convert(args[name], more, str_keys=True)
                except msgspec.ValidationError as error:
                    raise ValueError(f"{name}: {explain(error)}") from None
            return bound

        return bind_all

    def _annotation(self, parameter: inspect.Parameter) -> Any:
        if parameter.annotation is parameter.empty:
            return Any
        inner = inspect.unwrap(getattr(self._function, "func", self._function))
        names = getattr(inner, "__globals__", None) or getattr(type(inner).__call__, "__globals__", {})
        holder = SimpleNamespace(__annotations__={"it": parameter.annotation})
        try:
            return get_type_hints(holder, names, names, include_extras=True)["it"]
        except Exception as error:
            raise TaskError(
                f"the annotation of {parameter.name} cannot be read: {parameter.annotation} "
                f"({type(error).__name__}: {error})",
                hint="Import at run time, at the top of the module, what it names; or leave it out.",
            ) from None


def explain(error: Exception) -> str:
    """Which argument is wrong and what was expected, in one line."""
    if not isinstance(error, msgspec.ValidationError):
        return str(error)
    found = _WHERE.fullmatch(str(error))
    what, where = (found[1], found[2]) if found else (str(error), "")
    what = what[:1].lower() + what[1:]
    return f"{where}: {what}" if where else what


def _default(parameter: inspect.Parameter) -> tuple[Any, ...]:
    if parameter.default is parameter.empty:
        return ()
    default = parameter.default
    return (msgspec.field(default_factory=lambda: default),)


def _is_plain(kind: Any) -> bool:
    """Whether msgspec reads it without help."""
    if kind is Any:
        return True
    try:
        return not _has_custom(shape.type_info(kind), set())
    except TypeError:  # a union that it cannot tell apart
        return False


def _has_custom(info: Any, seen: set[int]) -> bool:
    if isinstance(info, shape.CustomType):
        return True
    if id(info) in seen:
        return False
    seen.add(id(info))
    if isinstance(info, tuple | list):
        return any(_has_custom(one, seen) for one in info)
    if isinstance(info, shape.Type | shape.Field):
        return any(_has_custom(getattr(info, name), seen) for name in info.__struct_fields__ if name != "cls")
    return False


def _by_pydantic(name: str, kind: Any) -> Convert:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - heavy, and rarely needed
    from pydantic.errors import PydanticUserError  # noqa: PLC0415

    try:
        adapter = TypeAdapter(kind)
    except (PydanticUserError, TypeError):
        raise TaskError(
            f"the annotation of {name} is {kind}, which no JSON becomes",
            hint="Use plain types, dates, UUID, Decimal, enums, msgspec Structs, dataclasses or pydantic models.",
        ) from None

    def read(value: Any) -> Any:
        try:
            return adapter.validate_json(to_json(value))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in (name, *first["loc"]))
            raise ValueError(f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None

    return read


def _encode(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    dump = getattr(value, "model_dump", None)
    if dump is None or isinstance(value, type):
        raise TypeError(f"values of type {type(value).__name__} are not supported")
    return dump(mode="json")
