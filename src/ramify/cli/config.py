"""``ramify config``: the resolved configuration, and the keys."""

from typing import Annotated

import typer

from ramify.cli.common import Arguments, AsJson, say, say_json, sort_given, warn
from ramify.errors import ConfigError, nearest


def config(
    arguments: Arguments = None,
    keys: Annotated[
        bool,
        typer.Option("--keys", help="Every key, or those named: what it accepts, its default, its meaning."),
    ] = False,
    ready: Annotated[bool, typer.Option("--presets", help="Every preset and what it is for.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the configuration that a run would have, with everything filled in that was left open.

    Examples:

    - `ramify config`
    - `ramify config mine.yaml train.epochs=40`
    - `ramify config --keys`
    - `ramify config --keys train.ema`
    - `ramify config --presets`
    """
    from ramify.config.read import read_configs, to_yaml
    from ramify.config.rules import resolve
    from ramify.config.unread import unread

    if ready:
        _print_presets(as_json)
        return
    if keys:
        _print_keys(arguments or [], as_json)
        return
    given = read_configs(*sort_given(arguments or []))
    for note in dict.fromkeys(note for config in given for note in unread(config)):
        warn(f"note: {note}")
    configs = [resolve(config) for config in given]
    if as_json:
        documents = [config.model_dump(mode="json") for config in configs]
        say_json(documents[0] if len(documents) == 1 else documents)
    else:
        say("---\n".join(to_yaml(config) for config in configs).rstrip())


def _print_presets(as_json: bool) -> None:
    from ramify.config.presets import presets, purpose

    purposes = {name: purpose(path) for name, path in presets().items()}
    if as_json:
        say_json([{"name": name, "purpose": text} for name, text in purposes.items()])
        return
    wide = max(map(len, purposes))
    for name, text in purposes.items():
        typer.echo(f"{typer.style(name.ljust(wide), bold=True)}  {text}")
    say("train by one with: ramify train NAME, and key=value behind it")


def _print_keys(names: list[str], as_json: bool) -> None:
    """Every key, or those of ``names``, which are keys and sections."""
    from ramify.config.keys import accepts_of, keys, meaning_of
    from ramify.config.yamltext import to_text

    fields = dict(keys())
    shown = [key for key in fields if not names or any(f"{key}.".startswith(f"{name}.") for name in names)]
    problems = [
        f"--keys: got {name!r}{nearest(name, fields)}; accepted: a key or a section"
        for name in names
        if not any(f"{key}.".startswith(f"{name}.") for key in shown)
    ]
    if problems:
        raise ConfigError(*problems)
    rows = [(name, accepts_of(fields[name]), fields[name].get_default(), meaning_of(fields[name])) for name in shown]
    if as_json:
        say_json([dict(zip(("key", "accepts", "default", "meaning"), row, strict=True)) for row in rows])
        return
    for name, accepts, default, meaning in rows:
        typer.echo(f"{typer.style(name, bold=True)} = {to_text(default)}\n    accepts {accepts}\n    {meaning}")
