"""What the site needs beyond docs/: pages and files from the rest of the repository, formulas, the table of settings.

The Markdown is written for readers of the repository, with links between its files. Here

- README.md, CONTRIBUTING.md and CHANGELOG.md become pages of the site;
- a link from a page to a page leads to this page of the site, and any other linked file is copied into the site;
- a block ```math, which is LaTeX, becomes MathML, which browsers draw without a script or a font from the network;
- the line `<!-- settings -->` becomes a table of the fields of `boltzflow.Config`;
- the search of a page opened from a folder takes its script from docs/assets, not from the network.
"""

import dataclasses
import os
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File

from boltzflow.config import Config

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
SHIM = "https://unpkg.com/iframe-worker/shim"
FENCE = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)


def on_config(config):
    """Formulas get their own fence."""
    fence = {"name": "math", "class": "math", "format": _mathml}
    config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", []).append(fence)
    config.watch += [str(ROOT / name) for name in PAGES]
    return config


def on_files(files, config):
    """Add the pages of the root, and the files outside docs/ that pages link to."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text("utf-8")))
    for file in list(files.documentation_pages()):
        for link in LINK.finditer(_without_code(file.content_string)):
            name = _in_repository(file.src_uri, link[2])
            outside = name is not None and name not in PAGES and not name.startswith("docs/")
            if outside and (ROOT / name).is_file() and files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links lead to where their files are on the site."""
    here = page.file.src_uri
    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(lambda link: link[1] + _on_site(here, link[2]) + link[3], part) for part in parts[::2]]
    return "".join(parts).replace("<!-- settings -->", _settings())


def on_post_page(output, page, config):
    """The theme's offline plugin names an address on the network."""
    return _offline(output, posixpath.dirname(page.url))


def on_post_template(output_content, template_name, config):
    return _offline(output_content, "")


def _offline(html, folder):
    return html.replace(SHIM, posixpath.relpath("assets/iframe-worker.js", folder or os.curdir))


def _without_code(markdown):
    return "".join(FENCE.split(markdown)[::2])


def _in_repository(page, link):
    """The path from the root of the repository of a file that a page of the site links to; None for an address."""
    if re.match(r"[a-z]+:", link):
        return None
    source = {made: name for name, made in PAGES.items()}.get(page, f"docs/{page}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _on_site(page, link):
    """The link of a page of the site to the same file on the site."""
    name = _in_repository(page, link)
    if name is None:
        return link
    place = PAGES.get(name, name.removeprefix("docs/"))
    return posixpath.relpath(place, posixpath.dirname(page) or os.curdir)


def _mathml(source, language, css_class, options, md, **kwargs):
    return f'<div class="{css_class}">{convert(source.strip(), display="block")}</div>'


def _settings():
    """A table of all settings with their defaults and help."""
    rows = ["| setting | default | what it is |", "|---|---|---|"]
    for field in dataclasses.fields(Config):
        what = str(field.metadata.get("help", "")).replace("|", "\\|")
        rows.append(f"| `{field.name}` | `{field.default!r}` | {what} |")
    return "\n".join(rows)
