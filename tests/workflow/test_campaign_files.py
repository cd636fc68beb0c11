import subprocess
import sys
from pathlib import Path

import pytest

from aldriver.core.errors import CampaignBusyError, InputError
from aldriver.core.recipe import load_recipe
from aldriver.core.recipe_binding import GrainBoundary
from aldriver.core.recipe_extended import Errors, Forgetting
from aldriver.core.recipe_thermal import Liquid
from aldriver.workflow.campaign import absolute, create, differences, lock, open_campaign, promoted

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))


def test_a_new_campaign_is_found_again(write_recipe, tmp_path):
    made = create(write_recipe(), tmp_path / "c")
    assert create(write_recipe(), tmp_path / "c") == made == open_campaign(tmp_path / "c")
    assert [e["event"] for e in made.ledger.read()] == ["campaign_created"]
    assert made.recipe.digest() == made.digest
    assert made.frontier() == (0, False) and promoted(made) is None


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_the_frozen_recipe_is_the_recipe(path, tmp_path):
    made = create(path, tmp_path / "c")
    assert made.recipe.digest() == absolute(load_recipe(path), path.parent).digest()
    assert create(path, tmp_path / "c") == made


def test_files_of_the_benchmark_lie_beside_the_recipe(write_recipe, tmp_path):
    recipe = load_recipe(write_recipe())
    (tmp_path / "saved").mkdir()
    benchmark = recipe.benchmark.model_copy(
        update={
            "errors": Errors(frames={"bcc-Fe": Path("frames.extxyz")}),
            "forgetting": Forgetting(foundation="saved"),
            "liquid": Liquid(structures={"bcc-Fe": Path("melt.cif")}),
            "grain_boundary": GrainBoundary(structures=[{"name": "mine", "file": "gb.extxyz", "a": 2.83}]),
        }
    )
    found = absolute(recipe.model_copy(update={"benchmark": benchmark}), tmp_path).benchmark
    assert found.errors.frames == {"bcc-Fe": tmp_path / "frames.extxyz"}
    assert found.forgetting.foundation == str(tmp_path / "saved")
    assert found.liquid.structures == {"bcc-Fe": tmp_path / "melt.cif"}
    assert found.grain_boundary.structures[0].file == tmp_path / "gb.extxyz"


def test_a_changed_recipe_is_refused_or_recorded(write_recipe, tmp_path):
    made = create(write_recipe(), tmp_path / "c")
    changed = write_recipe(seed=2, stop={"generations": 5})
    with pytest.raises(InputError, match=r"seed: 1 → 2; stop.generations: 2 → 5.*--accept-changes"):
        create(changed, tmp_path / "c")
    assert open_campaign(tmp_path / "c") == made
    accepted = create(changed, tmp_path / "c", accept_changes=True)
    assert accepted.id == made.id and accepted.recipe.seed == 2
    (entry,) = accepted.ledger.find("recipe_changed")
    assert (entry["old"], entry["new"]) == (made.digest, accepted.digest)
    assert {c["key"] for c in entry["changes"]} == {"seed", "stop.generations"}
    assert create(changed, tmp_path / "c") == accepted


def test_another_campaigns_directory_is_refused(write_recipe, tmp_path):
    create(write_recipe(), tmp_path / "c")
    with pytest.raises(InputError, match="belongs to the campaign 'tiny'"):
        create(_other(write_recipe), tmp_path / "c")


def _other(write_recipe):
    path = write_recipe("other.yaml")
    path.write_text(path.read_text().replace("name: tiny", "name: other"))
    return path


def test_foreign_directories_are_refused(write_recipe, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="holds other files"):
        create(write_recipe(), tmp_path / "c")
    with pytest.raises(InputError, match="not a campaign"):
        open_campaign(tmp_path)


def test_an_edited_frozen_recipe_is_refused(campaign):
    path = campaign.root / "recipe.yaml"
    path.write_text(path.read_text().replace("seed: 1", "seed: 9"))
    with pytest.raises(InputError, match="edited by hand"):
        _ = open_campaign(campaign.root).recipe


def test_an_interrupted_creation_is_completed(write_recipe, tmp_path):
    made = create(write_recipe(), tmp_path / "c")
    (made.root / "campaign.json").unlink()
    assert create(write_recipe(), tmp_path / "c").digest == made.digest


def test_files_beside_the_recipe_are_found_from_anywhere(write_recipe, tmp_path):
    (tmp_path / "mine.eam.fs").write_text("")
    (tmp_path / "bundle").mkdir()
    path = write_recipe(potential="bundle", label={"engine": "calculator", "reference": "eam:mine.eam.fs"})
    recipe = create(path, tmp_path / "c").recipe
    assert recipe.potential == str(tmp_path / "bundle")
    assert recipe.label.reference == f"eam:{tmp_path / 'mine.eam.fs'}"


def test_the_lock_names_its_holder_and_ends_with_it(campaign):
    code = (
        "import sys, time; from aldriver.workflow.campaign import *; c = open_campaign(sys.argv[1])\n"
        "with lock(c): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(campaign.root)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(CampaignBusyError, match=f"pid {holder.pid}"), lock(campaign):
        pass
    holder.kill()
    with lock(campaign):
        pass
    holder.communicate()


def test_errors_inside_the_lock_are_not_mistaken_for_its_own(campaign):
    with pytest.raises(CampaignBusyError, match="inner"), lock(campaign):
        raise CampaignBusyError("inner")


def test_differences_name_leaves():
    assert differences({"a": {"b": 1, "c": [1]}}, {"a": {"b": 2, "c": [1]}, "d": 0}) == [("a.b", 1, 2), ("d", None, 0)]


def test_racing_creations_make_one_campaign(write_recipe, tmp_path):
    code = "import sys; from aldriver.workflow.campaign import create; print(create(*sys.argv[1:]).id)"
    command = [sys.executable, "-c", code, str(write_recipe()), str(tmp_path / "c")]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({racer.communicate(timeout=60)[0] for racer in racers}) == 1
