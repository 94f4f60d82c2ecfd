"""``ramify data``: fetch pictures ahead of a run, and see what a source holds."""

from ramify.cli.common import AsJson, Given, download_lines, say, say_json, show, sort_given


def data(given: Given = None, as_json: AsJson = False) -> None:
    """Load the pictures that a configuration names, fetching them if need be, and count them.

    Examples:

    - `ramify data`
    - `ramify data data.source=cifar10`
    - `ramify data data.source=photos.zip data.size=64`
    """
    from rich.table import Table
    from rich.text import Text

    from ramify.configfile import read_config
    from ramify.data.sources import load_pictures

    config = read_config(*sort_given(given or []))
    pictures = load_pictures(config.data, None if as_json else download_lines(say))
    classes = len(pictures.classes)
    counts = [part.labels.bincount(minlength=classes).tolist() for part in (pictures.train, pictures.test)]
    channels, height, width = pictures.shape
    if as_json:
        say_json(
            {
                "source": config.data.source,
                "shape": pictures.shape,
                "classes": pictures.classes,
                "train": counts[0],
                "test": counts[1],
            }
        )
        return
    colour = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    say(
        f"{config.data.source}: {len(pictures.train):,} training and {len(pictures.test):,} test pictures, "
        f"{colour}, {height} x {width} pixels, {classes} classes"
    )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("class")
    table.add_column("training", justify="right")
    table.add_column("test", justify="right")
    for name, trained, tested in zip(pictures.classes, *counts, strict=True):
        table.add_row(Text(name), f"{trained:,}", f"{tested:,}")
    show(table)
