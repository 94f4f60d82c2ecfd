"""``ramify config``: the resolved configuration, and what every key means."""

import difflib
from typing import Annotated

import typer

from ramify.cli.common import AsJson, Given, say, say_json, sort_given
from ramify.errors import ConfigError


def config(
    given: Given = None,
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

    if ready:
        _print_presets(as_json)
        return
    if keys:
        _print_keys(given or [], as_json)
        return
    configs = [resolve(found) for found in read_configs(*sort_given(given or []))]
    if as_json:
        documents = [found.model_dump(mode="json") for found in configs]
        say_json(documents[0] if len(documents) == 1 else documents)
    else:
        say("---\n".join(to_yaml(found) for found in configs).rstrip())


def _print_presets(as_json: bool) -> None:
    from ramify.config.presets import presets, purpose

    found = {name: purpose(path) for name, path in presets().items()}
    if as_json:
        say_json([{"name": name, "purpose": text} for name, text in found.items()])
        return
    wide = max(map(len, found))
    for name, text in found.items():
        typer.echo(f"{typer.style(name.ljust(wide), bold=True)}  {text}")
    say("train by one with: ramify train NAME, and key=value behind it")


def _print_keys(wanted: list[str], as_json: bool) -> None:
    from ramify.config.keys import key_of, keys
    from ramify.config.yamltext import to_text

    there = dict(keys())
    asked = [name for name in there if not wanted or any(f"{name}.".startswith(f"{each}.") for each in wanted)]
    unknown = [each for each in wanted if not any(f"{name}.".startswith(f"{each}.") for name in asked)]
    if unknown:
        nearest = {each: difflib.get_close_matches(each, there, n=1, cutoff=0.4) for each in unknown}
        hints = {each: f"; the nearest is {names[0]}" if names else "" for each, names in nearest.items()}
        raise ConfigError(*(f"--keys: got {each!r}; accepted: a key or a section{hints[each]}" for each in unknown))
    rows = [(name, key_of(there[name]), there[name].get_default()) for name in asked]
    if as_json:
        say_json(
            [
                {"key": name, "accepts": key.accepts, "default": default, "meaning": key.meaning}
                for name, key, default in rows
            ]
        )
        return
    for name, key, default in rows:
        typer.echo(f"{typer.style(name, bold=True)} = {to_text(default)}\n    accepts {key.accepts}\n    {key.meaning}")
