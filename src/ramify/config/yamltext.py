"""Values to and from YAML text."""

import re

import yaml


class Dumper(yaml.SafeDumper):
    """Sections as blocks, lists in one line."""


Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)


class Loader(yaml.SafeLoader):
    """YAML 1.1, but with 1e-3 as a number; the standard asks for 1.0e-3."""


for _each in (Loader, Dumper):  # the dumper quotes what the loader would read as a number
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def to_text(value: object) -> str:
    """A value as a person would have written it in YAML."""
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, str):
        return repr(value)
    text = yaml.dump(value, Dumper=Dumper, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.strip().removesuffix("...").strip()
