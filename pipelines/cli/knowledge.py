"""`careloom knowledge`: the documents that answers to patients quote, indexed, searched and listed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipelines.cli.configuration import configuration
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from plugins.knowledge.index import DocumentIndex
    from plugins.scenario import Locale, Passage

app = typer.Typer(help="The documents that answers to patients quote.", no_args_is_help=True)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="careloom.toml; else CARELOOM_CONFIG.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.command()
def index(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of .md and .pdf; else [knowledge] folders, else careloom's own."),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Read the documents and put their index in place of the old one; searches go on meanwhile."""
    from plugins.knowledge.documents import read_folder
    from plugins.knowledge.index import INDEX_FILE, LIBRARY, build

    settings = configuration(config)
    chosen = folders or settings.knowledge.folders or (LIBRARY,)
    with _said_clearly():
        documents = [document for folder in chosen for document in read_folder(folder)]
        count = build(settings.state_dir / INDEX_FILE, documents)
    typer.echo(f"{count} passages of {len(documents)} documents")


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(help="A question, or words.")],
    locale: Annotated[str, typer.Option(help="zh or en; else that of the configuration.")] = "",
    cap: Annotated[int, typer.Option(min=1, max=20, help="Passages at most.")] = 3,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what a scenario would be given for a question."""
    settings = configuration(config)
    languages: dict[str, Locale] = {"zh": "zh", "en": "en", "": settings.locale}
    if locale not in languages:
        raise ConfigError(f"--locale {locale}: write zh or en")
    with _said_clearly():
        found = _index(settings.state_dir).search(" ".join(words), locale=languages[locale], cap=cap)
    _show(found, as_json, nothing="no passage answers this", text=True)


@app.command("list")
def list_(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show every passage with its source, date and licence."""
    with _said_clearly():
        found = _index(configuration(config).state_dir).passages()
    _show(found, as_json, nothing="the index is empty", text=False)


def _index(state: Path) -> DocumentIndex:
    from plugins.knowledge.index import INDEX_FILE, DocumentIndex

    return DocumentIndex(state / INDEX_FILE)


@contextmanager
def _said_clearly() -> Iterator[None]:
    """A document or index that cannot be used is the caller's to repair: one line, exit code 2."""
    from plugins.knowledge.documents import KnowledgeError

    try:
        yield
    except KnowledgeError as error:
        raise ConfigError(str(error)) from None


def _show(found: Sequence[Passage], as_json: bool, *, nothing: str, text: bool) -> None:
    if as_json:
        for each in found:
            typer.echo(json.dumps({name: getattr(each, name) for name in each.__slots__}, ensure_ascii=False))
        return
    table = Table("id", "title", "date", "licence", *(["text"] if text else ["locale"]))
    for each in found:
        table.add_row(each.id, each.title, each.date, each.licence, each.text if text else each.locale)
    Console().print(table if found else nothing)
