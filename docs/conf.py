"""The site of the guides and the API, made by `make docs`: nothing in it is fetched when it is read."""

import re

from docutils import nodes
from pydantic import BaseModel
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import ramify
from ramify.config.keys import accepts_of, meaning_of

project = "ramify"
author = "the authors of ramify"
version = release = ramify.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]
exclude_patterns = ["_build"]
highlight_language = "text"
html_theme = "furo"
html_title = f"ramify {release}"
html_copy_source = False

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

myst_heading_anchors = 3
myst_links_external_new_tab = False
nb_execution_mode = "off"  # the tests run the notebooks; what they print is kept in them
suppress_warnings = ["ref.python"]  # several classes may have an attribute of one name


def public_name(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, text: nodes.Element
) -> nodes.Element | None:
    """A reference to a name by its module, as docstrings have it, leads to the public name's entry."""
    target = str(node.get("reftarget", ""))
    parts = target.split(".")
    names = [f"ramify.{name}" for name in (parts[-1], ".".join(parts[-2:])) if name]
    objects = env.domains["py"].data["objects"]
    for name in names:
        if name in objects and node.get("refdomain") == "py":
            found = objects[name]
            uri = app.builder.get_relative_uri(env.docname, found.docname) + f"#{found.node_id}"
            return nodes.reference("", "", text, internal=True, refuri=uri)
    return None


def without_types(
    app: Sphinx, what: str, name: str, found: object, options: object, signature: str, returns: str
) -> tuple[str, str] | None:
    """The signature of a section of the configuration: its keys are listed below it."""
    return ("(**keys)", "") if isinstance(found, type) and issubclass(found, BaseModel) else None


def with_keys(app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]) -> None:
    """The keys of a section, each with what it accepts, its default and its meaning."""
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        return
    lines.append("")
    for key, field in found.model_fields.items():
        if isinstance(field.default, BaseModel):
            lines.append(f":param {key}: a :class:`ramify.{type(field.default).__name__}`")
            continue
        text = f"{meaning_of(field)}. Accepts {accepts_of(field)}; default {field.default!r}."
        lines.append(f":param {key}: " + re.sub(r"([*`|_\\])", r"\\\1", text))
    lines.append("")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("missing-reference", public_name)
    app.connect("autodoc-process-signature", without_types)
    app.connect("autodoc-process-docstring", with_keys)
