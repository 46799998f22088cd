"""The table of all settings, made from the groups: docs, checks, the sample file and environment names come from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from mendstream.settings import groups
from mendstream.settings.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One setting."""

    group: str
    """Empty for the two that stand above all groups: `pipeline` and `name`."""
    name: str
    type: Any
    """As annotated, bounds included."""
    kind: Literal["str", "int", "float", "bool", "choice", "table", "secret"]
    default: Any
    unit: str
    low: float | None
    high: float | None
    above: bool
    """`low` itself is out of bounds."""
    choices: tuple[str, ...]
    doc: str

    @property
    def key(self) -> str:
        return f"{self.group}.{self.name}" if self.group else self.name

    @property
    def env(self) -> str:
        """Its name in the environment."""
        return "MENDSTREAM_" + self.key.replace(".", "_").upper()

    @property
    def wanted(self) -> str:
        """What may stand there, for people: `int, 1 to 64`."""
        words = [" | ".join(self.choices) if self.choices else self.kind]
        if self.low is not None or self.high is not None:
            words.append(_range(self.low, self.high, self.above))
        if not self.choices and self.unit:
            words.append(self.unit)
        return ", ".join(words)


def toml_value(value: Any) -> str:
    """`value` as TOML writes it; a secret as stars."""
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{name} = {toml_value(item)}" for name, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, Secret):
        return toml_value(str(value))
    # A JSON string, number or truth value is a TOML one too.
    return msgspec.json.encode(value).decode()


def _range(low: float | None, high: float | None, above: bool) -> str:
    if above:
        return f"above {low}" + (f", at most {high}" if high is not None else "")
    if high is None:
        return f"at least {low}"
    return f"at most {high}" if low is None else f"{low} to {high}"


def _fields(group: str, struct: type[msgspec.Struct]) -> list[Field]:
    found = []
    for field in msgspec.structs.fields(struct):
        default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        if isinstance(default, groups.Group):
            found += _fields(field.name, type(default))
        else:
            found.append(_field(group, field.name, struct.__annotations__[field.name], default))
    return found


def _field(group: str, name: str, annotation: Any, default: Any) -> Field:
    bare, *metas = get_args(annotation)
    bounds: dict[str, float] = {}
    doc = unit = ""
    for meta in metas:
        for word in ("ge", "gt", "le"):
            if (limit := getattr(meta, word)) is not None:
                bounds[word] = limit
        doc, unit = meta.description or doc, (meta.extra or {}).get("unit", unit)
    return Field(
        group=group, name=name, type=annotation, kind=_kind(bare), default=default, unit=unit, doc=doc,
        low=bounds.get("ge", bounds.get("gt")), high=bounds.get("le"), above="gt" in bounds,
        choices=get_args(bare) if get_origin(bare) is Literal else (),
    )  # fmt: skip


def _kind(bare: Any) -> Any:
    if bare is Secret:
        return "secret"
    match get_origin(bare):
        case None:
            return bare.__name__
        case origin if origin is Literal:
            return "choice"
        case origin if origin is Annotated:
            return _kind(get_args(bare)[0])
        case _:
            return "table"


FIELDS: tuple[Field, ...] = tuple(_fields("", groups.Settings))
FIELD_OF: dict[str, Field] = {field.key: field for field in FIELDS}
FIELD_OF_ENV: dict[str, Field] = {field.env: field for field in FIELDS}
GROUP_DOCS: dict[str, str] = {
    field.name: type(field.default).__doc__ or ""
    for field in msgspec.structs.fields(groups.Settings)
    if isinstance(field.default, groups.Group)
}
"""Group name -> its line of docs."""
