"""The documentation agrees with the code: every recipe key explained, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from aldriver.core.errors import InputError
from aldriver.core.recipe import Recipe
from aldriver.testing import recipe_docs

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def test_recipe_tables_are_up_to_date():
    text = (DOCS / "recipe.md").read_text()
    assert text == recipe_docs.updated(text), "run `python -m aldriver.testing.recipe_docs`"


def test_every_key_is_explained_and_no_explanation_is_left_over():
    keys = {k.path: k for k in recipe_docs.all_keys()}
    assert [path for path, key in keys.items() if not key.meaning] == []
    assert set(recipe_docs.MEANINGS) <= set(keys) and set(recipe_docs.UNITS_OF) <= set(keys)
    unused = [p for p, text in recipe_docs.MEANINGS.items() if keys[p].meaning != text]
    assert unused == []  # the schema has its own description by now


def test_keys_units_and_defaults_are_those_of_the_recipe():
    keys = {k.path: k for k in recipe_docs.all_keys()}
    assert set(Recipe.model_fields) == {p for p in keys if "." not in p}
    expected = {
        "explore.timestep_fs": ("number > 0, ≤ 10", "fs", "`1.0`"),
        "stop.force_rmse_meV_A": ("number > 0", "meV/Å", "–"),
        "explore.health.max_energy_jump_eV_atom": ("number > 0", "eV/atom", "`1.0`"),
        "explore.health.max_force_eV_A": ("number > 0", "eV/Å", "`100.0`"),
        "explore.rattle_A": ("number ≥ 0, ≤ 0.5", "Å", "`0.0`"),
        "label.timeout_s": ("number > 0", "s", "`3600.0`"),
        "systems[].bulk.lattice": ("`bcc`, `fcc`, `diamond`, `hcp`, `sc`", "", "**required**"),
        "systems[].solutes": ("mapping", "", "empty"),
        "label.espresso": ("block", "", "off"),
        "explore.health": ("block", "", "its defaults"),
    }
    assert {p: (keys[p].kind, keys[p].unit, keys[p].default) for p in expected} == expected


def test_the_smallest_recipe_of_the_page_is_valid():
    example = re.search(r"```yaml\n(.*?)```", (DOCS / "recipe.md").read_text(), re.DOTALL).group(1)
    assert Recipe.model_validate(yaml.safe_load(example)).label.budget > 0


def test_page_without_markers_is_refused_and_main_writes(tmp_path, monkeypatch):
    page = tmp_path / "recipe.md"
    page.write_text("no markers")
    monkeypatch.setattr("sys.argv", ["recipe_docs", str(page)])
    with pytest.raises(InputError, match="markers"):
        recipe_docs.main()
    page.write_text(f"before\n{recipe_docs.BEGIN}\nstale\n{recipe_docs.END}\nafter\n")
    recipe_docs.main()
    text = page.read_text()
    assert "stale" not in text and text.startswith("before") and text.endswith("after\n") and "`seed`" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        linked = (page.parent / target) if target else page
        assert linked.is_file(), f"{page.name} → {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{page.name} → {target}#{anchor}"


def test_every_command_is_documented():
    main = (DOCS.parent / "aldriver" / "cli" / "main.py").read_text()
    commands = re.findall(r'app\.command\("([a-z-]+)"\)', main)
    text = (DOCS / "cli.md").read_text()
    assert commands and [c for c in commands if f"`aldriver {c}" not in text] == []


def examples():
    """Each `aldriver` line of the pages and the README, without its comment."""
    found = []
    for page in [*PAGES, DOCS.parent / "README.md"]:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
            lines = [line.split(" #")[0].strip() for line in block.splitlines()]
            found += [(page.name, line) for line in lines if line.startswith("aldriver ")]
    return found


@pytest.mark.parametrize(("page", "line"), examples(), ids=lambda x: x)
def test_commands_in_the_documentation_are_understood(page, line):
    """Command, options and numbers of arguments; what they do is tested where they live."""
    import typer

    from aldriver.cli.main import app

    group = typer.main.get_command(app)
    name, *args = line.removeprefix("aldriver ").split()
    context = group.make_context("aldriver", [name], resilient_parsing=True)
    command = group.get_command(context, name)
    assert command is not None, f"{page}: there is no `aldriver {name}`"
    if not hasattr(command, "commands"):
        command.make_context(name, args)
