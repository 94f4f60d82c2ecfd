"""``ramify config``: the resolved configuration, and what every key means."""

from typing import Annotated

import typer

from ramify.cli.common import AsJson, Given, say, say_json, sort_given


def config(
    given: Given = None,
    keys: Annotated[bool, typer.Option("--keys", help="Every key: what it accepts, its default, its meaning.")] = False,
    ready: Annotated[bool, typer.Option("--presets", help="Every preset and what it is for.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the configuration that a run would have, with everything filled in that was left open.

    Examples:

    - `ramify config`
    - `ramify config mine.yaml train.epochs=40`
    - `ramify config --keys`
    - `ramify config --presets`
    """
    from ramify.config import resolve
    from ramify.configfile import read_configs, to_yaml

    if ready:
        _print_presets(as_json)
        return
    if keys:
        _print_keys(as_json)
        return
    configs = [resolve(found) for found in read_configs(*sort_given(given or []))]
    if as_json:
        documents = [found.model_dump(mode="json") for found in configs]
        say_json(documents[0] if len(documents) == 1 else documents)
    else:
        say("---\n".join(to_yaml(found) for found in configs).rstrip())


def _print_presets(as_json: bool) -> None:
    from ramify.presets import presets, purpose

    found = {name: purpose(path) for name, path in presets().items()}
    if as_json:
        say_json([{"name": name, "purpose": text} for name, text in found.items()])
        return
    wide = max(map(len, found))
    for name, text in found.items():
        typer.echo(f"{typer.style(name.ljust(wide), bold=True)}  {text}")
    say("train by one with: ramify train NAME, and key=value behind it")


def _print_keys(as_json: bool) -> None:
    from ramify.config import describe, keys
    from ramify.yamltext import to_text

    rows = [(name, describe(field), field.get_default()) for name, field in keys()]
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
