"""Compares ways to index the knowledge base on the queries of its tests: `python scripts/compare_tokenizers.py`.

Prints recall at 1 and 3, how many questions without an answer come back empty, and times; the decision that rests on
it is docs/decisions/010-knowledge-base.md. jieba is needed for its row only (`pip install jieba`).
"""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from plugins.knowledge import index  # noqa: E402
from plugins.knowledge.documents import read_folder  # noqa: E402
from plugins.knowledge.tokens import tokens  # noqa: E402
from plugins.scenario import Passage  # noqa: E402

QUERIES = ROOT / "tests" / "plugins" / "knowledge" / "queries.json"
Search = Callable[[str, str, int], Sequence[str]]


def fts(
    passages: Sequence[Passage], tokenizer: str, cut: Callable[[str], list[str]], query: Callable[[str], list[str]]
) -> Search:
    """A plain FTS5 index with a tokenizer and a way to cut texts and questions; no floor."""
    database = sqlite3.connect(":memory:")
    database.execute(
        f"CREATE VIRTUAL TABLE t USING fts5(id UNINDEXED, locale UNINDEXED, title, text, tokenize = '{tokenizer}')"
    )
    for p in passages:
        database.execute(
            "INSERT INTO t VALUES (?, ?, ?, ?)", (p.id, p.locale, " ".join(cut(p.title)), " ".join(cut(p.text)))
        )

    def search(question: str, locale: str, cap: int) -> Sequence[str]:
        terms = " OR ".join('"' + term.replace('"', '""') + '"' for term in query(question))
        sql = "SELECT id FROM t WHERE t MATCH ? AND locale = ? ORDER BY bm25(t, 0, 0, 2.0, 1.0) LIMIT ?"
        return [row[0] for row in database.execute(sql, (terms, locale, cap))] if terms else []

    return search


def whole(text: str) -> list[str]:
    """The text as it is."""
    return [text]


def trigrams(text: str) -> list[str]:
    """Every three characters of a question: what the trigram tokenizer can find (nothing shorter)."""
    runs = re.findall(r"\w{3,}", unicodedata.normalize("NFKC", text).lower())
    return [run[i : i + 3] for run in runs for i in range(len(run) - 2)]


def plain_pairs(text: str) -> list[str]:
    """Pairs of Chinese characters, words as they are: no fillers cut, no endings off."""
    folded = unicodedata.normalize("NFKC", text).lower()
    found: list[str] = []
    for run in re.findall(r"[\u3400-\u9fff]+|[a-z0-9]+", folded):
        found += [run[i : i + 2] for i in range(len(run) - 1)] if run[0] >= "\u3400" else [run]
    return found


def main() -> None:
    """Print one row a way."""
    documents = read_folder(index.LIBRARY)
    passages = [p for d in documents for p in d.passages()]
    words = fts(passages, "unicode61", whole, plain_pairs)
    ways: dict[str, Search] = {
        "unicode61 on the text as it is": words,
        "trigram": fts(passages, "trigram", whole, trigrams),
        "pairs, nothing cut": fts(passages, "unicode61", plain_pairs, plain_pairs),
        "pairs and threes, fillers cut": fts(passages, "unicode61", tokens, tokens),
    }
    try:
        import jieba

        jieba.setLogLevel(60)
        cut = lambda text: [w for w in jieba.cut_for_search(text.lower()) if re.match(r"\w", w)]  # noqa: E731
        ways["jieba (cut_for_search)"] = fts(passages, "porter unicode61", cut, cut)
    except ImportError:
        print("jieba is not installed: its row is left out")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "index.sqlite"
        index.build(file, documents)
        for floor in (0.0, 0.2, 0.25, 0.3, 0.35, 0.4):
            built = index.DocumentIndex(file, floor)
            ways[f"chosen, floor {floor}"] = lambda q, locale, cap, built=built: [
                p.id for p in built.search(q, locale=locale, cap=cap)
            ]
        report(ways)


def report(ways: dict[str, Search]) -> None:
    """The rows."""
    queries = json.loads(QUERIES.read_text(encoding="utf-8"))
    print("| way | zh @1 | zh @3 | en @1 | en @3 | unanswerable: empty | ms a query |\n|---|---|---|---|---|---|---|")
    for name, search in ways.items():
        start = time.perf_counter()
        found = [(q, list(search(q["question"], q["locale"], 3))) for q in queries]
        took = (time.perf_counter() - start) / len(queries) * 1000
        cells = []
        for locale in ("zh", "en"):
            answered = [(q["right"], ids) for q, ids in found if q["locale"] == locale and q["right"]]
            cells += [f"{sum(right in ids[:n] for right, ids in answered)}/{len(answered)}" for n in (1, 3)]
        none = [ids for q, ids in found if not q["right"]]
        print(f"| {name} | {' | '.join(cells)} | {sum(not ids for ids in none)}/{len(none)} | {took:.2f} |")


if __name__ == "__main__":
    main()
