"""What every process of Airflow has to load for the page: one small module, and nothing that it imports of ours."""

from __future__ import annotations

import ast
from importlib.metadata import entry_points
from pathlib import Path

PLUGIN = Path(__file__).parents[2] / "monitoring" / "airflow_plugin.py"


def test_the_plugin_imports_nothing_but_what_airflow_has_loaded_before_it() -> None:
    tree = ast.parse(PLUGIN.read_text("utf-8"))
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in at_once}
    assert modules == {"__future__", "functools", "typing", "airflow.plugins_manager"}
    assert (PLUGIN.parent / "__init__.py").read_text("utf-8").count("import") == 0, "the package is loaded with it"


def test_airflow_finds_the_plugin_by_its_entry_point() -> None:
    [found] = [point for point in entry_points(group="airflow.plugins") if point.dist and point.dist.name == "careloom"]
    assert found.value == "monitoring.airflow_plugin:CareloomPlugin"
