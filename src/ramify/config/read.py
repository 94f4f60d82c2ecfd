"""Reading configurations: YAML and ``key=value``, to :class:`~ramify.config.rules.Config` and back.

Files are read first, then overrides; later ones win. All problems are reported at once, each with the key, what was
received, what is accepted, and where.

Example:
    >>> config = read_config(overrides=["train.epochs=40", "network.structure=[0,1,0]"])
    >>> config.train.epochs, config.network.exits
    (40, 2)
"""

import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from ramify.config.keys import SECTIONS, accepted, keys
from ramify.config.rules import Config
from ramify.config.yamltext import Dumper, Loader, to_text
from ramify.errors import ConfigError, InputError
from ramify.sealed import check_text

OPEN = frozenset({"network.module_args"})
"""Keys that hold a mapping; an override may be of one entry: ``network.module_args.width=2``."""


@dataclass(frozen=True)
class _Entry:
    """The value of a key, and where it stands."""

    value: object
    where: str


def read_config(
    files: Sequence[Path] = (), overrides: Sequence[str] = (), changes: Mapping[str, object] | None = None
) -> Config:
    """The configuration that ``files`` and ``overrides`` describe; see :func:`read_configs`.

    Args:
        files: as in :func:`read_configs`.
        overrides: as in :func:`read_configs`.
        changes: values by key, such as ``{"train.epochs": 5}``, which override the files and not the overrides.

    Raises:
        ConfigError: as :func:`read_configs`, or the files describe several runs.
    """
    configs = read_configs(files, overrides, changes)
    if len(configs) > 1:
        raise ConfigError(f"{files[-1]}: got {len(configs)} documents (---); accepted: one here")
    return configs[0]


def read_configs(
    files: Sequence[Path] = (), overrides: Sequence[str] = (), changes: Mapping[str, object] | None = None
) -> list[Config]:
    """Every configuration that YAML ``files`` and ``key=value`` ``overrides`` describe.

    One file may hold several documents (``---``), each a run. Other files and the overrides apply to all of them.

    Args:
        files: paths; a later file overrides an earlier one key by key.
        overrides: ``key=value`` with values in YAML, for example ``growth.epochs=[5,10,15]``.
        changes: as in :func:`read_config`.

    Raises:
        ConfigError: a file cannot be read, a key is unknown, a value is not accepted.
    """
    problems: list[str] = []
    documents = [_read_documents(path, problems) for path in files]
    if sum(len(document) > 1 for document in documents) > 1:
        problems.append("got several files with more than one document (---); accepted: one such file")
    changed = {key: _Entry(value, "as derived") for key, value in (changes or {}).items()}
    last = {**changed, **_read_overrides(overrides, problems)}
    if problems:
        raise ConfigError(*problems)
    configs: list[Config] = []
    for layers in itertools.product(*documents):
        entries: dict[str, _Entry] = {}
        for layer in (*layers, last):
            entries.update(layer)
        configs.append(_build(entries, problems))
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return configs


def to_yaml(config: Config) -> str:
    """The configuration as YAML that :func:`read_configs` reads back to an equal one."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)


def _read_documents(path: Path, problems: list[str]) -> list[dict[str, _Entry]]:
    try:
        content = path.read_bytes()
        check_text(content, str(path))
        text = content.decode()
    except InputError as error:
        problems.extend(error.problems)
        return []
    except FileNotFoundError:
        problems.append(f"{path}: got a file that does not exist; accepted: a YAML file, or key=value")
        return []
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: cannot be read as a text file ({error})")
        return []
    documents: list[dict[str, _Entry]] = []
    try:
        loader = Loader(text)
        while loader.check_node():
            entries: dict[str, _Entry] = {}
            _collect(loader, loader.get_node(), "", path, entries, problems)
            documents.append(entries)
    except RecursionError:
        problems.append(f"{path}: is nested too deeply; accepted: sections with key: value lines")
    except (yaml.YAMLError, ValueError) as error:  # a ValueError: a date such as 2020-13-40
        problems.append(f"{path}: is not YAML ({' '.join(str(error).split())})")
    # An empty file says nothing, which is a run with every default; so does a trailing '---'.
    return [entries for entries in documents if entries] or [{}]


def _collect(
    loader: Loader, node: yaml.Node | None, prefix: str, path: Path, entries: dict[str, _Entry], problems: list[str]
) -> None:
    """Flatten a YAML mapping to dotted keys, remembering the line of each."""
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
        return
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1
        problems.append(
            f"{path}:{line}: got {to_text(loader.construct_object(node, deep=True))}; accepted: key: value lines"
        )
        return
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = prefix + str(loader.construct_object(key_node, deep=True))
        if isinstance(value_node, yaml.MappingNode) or (key in SECTIONS and value_node.tag.endswith(":null")):
            _collect(loader, value_node, f"{key}.", path, entries, problems)
            continue
        if key in entries:
            problems.append(f"{path}:{line}: {key} is given twice; accepted: once")
        entries[key] = _Entry(loader.construct_object(value_node, deep=True), f"{path}:{line}")


def _read_overrides(overrides: Sequence[str], problems: list[str]) -> dict[str, _Entry]:
    entries: dict[str, _Entry] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            problems.append(f"got {text!r}; accepted: key=value, such as train.epochs=40")
            continue
        try:
            entries[key] = _Entry(yaml.load(value, Loader=Loader), "command line")
        except (yaml.YAMLError, ValueError, RecursionError):
            problems.append(f"{key}: got {value[:80]!r}, which is not YAML; accepted: {accepted(key)} (command line)")
    return entries


def _build(entries: Mapping[str, _Entry], problems: list[str]) -> Config:
    """The typed configuration of ``entries``; problems are added to ``problems``."""
    tree: dict[str, dict[str, object]] = {"": {}}
    known = dict(keys())
    for key, entry in entries.items():
        section, _, leaf = key.rpartition(".")
        value = entry.value
        if section in OPEN:
            name, (section, _, leaf) = leaf, section.rpartition(".")
            earlier = tree.get(section, {}).get(leaf, {})
            if not isinstance(earlier, dict):
                continue
            value = {**earlier, name: value}
        elif key not in known:
            problems.append(_unknown_key(key, entry, known))
            continue
        tree.setdefault(section, {})[leaf] = value
    try:
        return Config.model_validate({**tree.pop(""), **tree})
    except ValidationError as error:
        places = (detail["loc"] for detail in error.errors())
        refused = (".".join(map(str, place[: 2 if place[0] in SECTIONS else 1])) for place in places)
        for key in dict.fromkeys(refused):
            entry = entries.get(key) or next(entries[name] for name in entries if name.startswith(f"{key}."))
            problems.append(f"{key}: got {to_text(entry.value)}; accepted: {accepted(key)} ({entry.where})")
    except ConfigError as error:
        for problem in error.problems:
            key = problem.partition(":")[0]
            problems.append(f"{problem} ({entries[key].where})" if key in entries else problem)
    return Config()


def _unknown_key(key: str, entry: _Entry, known: Mapping[str, object]) -> str:
    if key in SECTIONS:
        example = next(name for name in known if name.startswith(f"{key}."))
        return f"{key}: got {to_text(entry.value)}; accepted: a section with keys such as {example} ({entry.where})"
    near = _likely_keys(key.rpartition(".")[2], known) or difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    hint = f"nearest known key: {near[0]}" if near else "see: ramify config --keys"
    return f"unknown key {key}; {hint} ({entry.where})"


ALIASES = {
    "data.broken": ("skip_broken",),
    "data.fold": ("folds", "kfold", "k_fold", "cross_validation"),
    "data.group": ("groups",),
    "data.labels": ("labels_file", "csv"),
    "data.sampler": ("balanced", "weighted_sampler", "oversample", "oversampling"),
    "data.size": ("image_size", "img_size", "img_sz"),
    "data.source": ("path", "dir", "root", "dataset"),
    "data.test_fraction": ("test_split",),
    "data.valid_fraction": ("val_split", "val_fraction", "validation_split"),
    "parent": ("pretrained", "pretrained_weights"),
    "train.class_weights": ("class_weight", "weights"),
    "train.epochs": ("max_epochs",),
    "train.learning_rate": ("lr",),
    "train.patience": ("early_stopping", "early_stop", "early_stopping_patience", "stop_after"),
    "train.threads": ("workers", "num_workers"),
}
"""Names of keys in other programs, whatever section they are put in."""


def _likely_keys(leaf: str, known: Mapping[str, object]) -> list[str]:
    """The key called ``leaf`` in another section, or in another program."""
    named = [name for name in known if name.rpartition(".")[2] == leaf]
    aliased = [key for key, aliases in ALIASES.items() if leaf.lower() in aliases]
    return named if len(named) == 1 else aliased or named[:1]
