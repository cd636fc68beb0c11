"""A campaign on disk: its layout, its frozen recipe, and how far its files say it has come.

Owns the directory and never the database: putting work on a launchpad is ``control.py``'s business.
"""

from __future__ import annotations

import fcntl
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aldriver.core.errors import CampaignBusyError, InputError
from aldriver.core.records import dumps, read_json
from aldriver.core.store import MANIFEST, Ledger, atomic_write, disk_errors, exclusive, is_published, sha256_file

if TYPE_CHECKING:
    from aldriver.core.recipe import Recipe

STAGES = ("explore", "select", "label", "train", "benchmark", "gate")
"""Stages of a generation, in order; generation 0 has ``reference`` in place of the first three."""
BASELINE_STAGES = ("reference", "train", "benchmark", "gate")
CAMPAIGN_FILE, RECIPE_FILE, CANCEL_FILE = "campaign.json", "recipe.yaml", "cancel.json"


@dataclass(frozen=True)
class Campaign:
    """A campaign directory.

    Attributes
    ----------
    root
        The directory, absolute.
    id, name, digest
        Unique id, name of the recipe, and digest of the frozen recipe.
    """

    root: Path
    id: str
    name: str
    digest: str

    @cached_property
    def recipe(self) -> Recipe:
        """The frozen recipe.

        Raises
        ------
        InputError
            When it was edited since (its digest differs from the recorded one).
        """
        path = self.root / RECIPE_FILE
        if not path.is_file() or sha256_file(path) != read_json(self.root / CAMPAIGN_FILE).get("recipe_sha256"):
            raise InputError(
                f"{path}: is missing or was edited by hand. Change your own recipe instead and give it to "
                "`aldriver run` or `resume` with --accept-changes, so that the change is recorded."
            )
        return _frozen(self.root)

    @property
    def ledger(self) -> Ledger:
        """The append-only list of commit points."""
        return Ledger(self.root / "ledger.jsonl")

    @property
    def labels(self) -> Path:
        """Where labels lie, one directory each."""
        return self.root / "labels"

    @property
    def cache(self) -> Path:
        """Finished benchmark properties."""
        return self.root / "cache" / "benchmark"

    def generation(self, g: int) -> Path:
        """Directory of a generation."""
        return self.root / f"generation-{g:03d}"

    def stage(self, g: int, name: str) -> Path:
        """Published directory of a stage."""
        return self.generation(g) / name

    def walker(self, g: int, index: int) -> Path:
        """Published directory of a walker."""
        return self.generation(g) / "explore" / f"walker-{index:03d}"

    def helper(self, g: int, index: int) -> Path:
        """Published directory of a task that made relaxations for the benchmark."""
        return self.generation(g) / "relax" / f"helper-{index:03d}"

    def potential(self, fingerprint: str) -> Path:
        """Bundle of a potential with its detector."""
        return self.root / "potentials" / fingerprint

    def is_published(self, g: int, name: str) -> bool:
        """Whether a stage is complete."""
        return is_published(self.stage(g, name))

    def decision(self, g: int) -> dict[str, Any]:
        """The gate's decision of a generation (``promoted``, ``decision``, ``reason``, ...)."""
        data = read_json(self.stage(g, "gate") / "decision.json")
        return data if isinstance(data, dict) else {}

    def frontier(self) -> tuple[int, bool]:
        """First generation whose gate has not decided yet (the last one when finished), and whether it is finished.

        A recipe that was changed after the end opens the campaign again.
        """
        g = 0
        while self.is_published(g, "gate"):
            if self.decision(g).get("stop") and not self.is_published(g + 1, "gate") and not self._reopened(g):
                return g, True
            g += 1
        return g, False

    def _reopened(self, g: int) -> bool:
        decided = read_json(self.stage(g, "gate") / MANIFEST)["published"]
        return any(e["time"] > decided for e in self.ledger.find("recipe_changed"))

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called and no `resume` since."""
        return (self.root / CANCEL_FILE).exists()


def create(recipe_path: str | Path, root: str | Path, *, accept_changes: bool = False) -> Campaign:
    """New campaign of a recipe, or the one that is there already.

    Raises
    ------
    InputError
        When the recipe is not valid or was changed (unless `accept_changes`, which records the change), or when `root`
        holds another campaign or files that are not a campaign's.
    """
    from aldriver.core.recipe import load_recipe

    root = Path(root).resolve()
    recipe = absolute(load_recipe(recipe_path), Path(recipe_path).resolve().parent)
    if (root / CAMPAIGN_FILE).exists():
        return check_recipe(root, recipe, accept_changes=accept_changes)
    unfinished = {RECIPE_FILE, "ledger.jsonl", ".lock"}  # of a creation that was interrupted
    if root.exists() and any(p.name not in unfinished and not p.name.startswith(".") for p in root.iterdir()):
        raise InputError(f"{root}: holds other files and is not a campaign; give a new or empty directory")
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(root, f"{recipe.name}-{secrets.token_hex(4)}", recipe.name, recipe.digest())
    with (root / ".create.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if (root / CAMPAIGN_FILE).exists():
            return check_recipe(root, recipe, accept_changes=accept_changes)
        _freeze(recipe, root)
        campaign.ledger.append("campaign_created", campaign=campaign.id, digest=campaign.digest)
        atomic_write(root / CAMPAIGN_FILE, dumps(_card(campaign, recipe, created=time.time())))
    return campaign


def open_campaign(root: str | Path) -> Campaign:
    """The campaign in a directory.

    Raises
    ------
    InputError
        When there is none.
    """
    root = Path(root).resolve()
    if not (root / CAMPAIGN_FILE).is_file():
        raise InputError(f"{root}: not a campaign (it has no {CAMPAIGN_FILE}); `aldriver run RECIPE` makes one")
    card = read_json(root / CAMPAIGN_FILE)
    try:
        return Campaign(root, card["id"], card["name"], card["digest"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{root / CAMPAIGN_FILE}: is damaged (no {error})") from error


def check_recipe(root: str | Path, recipe: Recipe, *, accept_changes: bool = False) -> Campaign:
    """The campaign in `root` if it is this recipe's; a changed recipe is refused, or accepted and recorded.

    Raises
    ------
    InputError
        When the directory belongs to another campaign, or the recipe changed and `accept_changes` is False.
    """
    campaign = open_campaign(root)
    if recipe.name != campaign.name:
        raise InputError(
            f"{campaign.root}: belongs to the campaign '{campaign.name}', your recipe is '{recipe.name}'. "
            "Give another directory with --dir."
        )
    changes = differences(_frozen(campaign.root).model_dump(mode="json"), recipe.model_dump(mode="json"))
    if not changes:
        return campaign
    listed = "; ".join(f"{key}: {old!r} → {new!r}" for key, old, new in changes)
    if not accept_changes:
        raise InputError(
            f"{campaign.root}: the recipe has changed since the campaign began ({listed}). "
            "Resume with --accept-changes to go on with the new one (recorded in the ledger), or undo the change."
        )
    with lock(campaign):
        card = read_json(campaign.root / CAMPAIGN_FILE)
        changed = Campaign(campaign.root, campaign.id, campaign.name, recipe.digest())
        campaign.ledger.append(
            "recipe_changed",
            old=campaign.digest,
            new=changed.digest,
            changes=[{"key": key, "old": old, "new": new} for key, old, new in changes],
        )
        _freeze(recipe, campaign.root)
        atomic_write(campaign.root / CAMPAIGN_FILE, dumps(_card(changed, recipe, created=card.get("created"))))
    return changed


@contextmanager
def lock(campaign: Campaign, *, wait_s: float = 10.0) -> Iterator[int]:
    """Hold the campaign for this process; yields the descriptor, which worker processes inherit.

    The lock lasts until the last process that inherited it has died. After a kill those need a moment, so a lock whose
    recorded holder is dead is waited for.

    Raises
    ------
    CampaignBusyError
        When another living process holds it.
    """
    path = campaign.root / ".lock"
    began = time.monotonic()
    with ExitStack() as stack:
        while True:
            try:
                descriptor = stack.enter_context(exclusive(path, what=f"the campaign in {campaign.root}"))
                break
            except CampaignBusyError:
                waited = time.monotonic() - began
                if waited >= wait_s or (waited >= min(1.0, wait_s) and holder_alive(campaign)):
                    raise
                time.sleep(0.1)
        yield descriptor


def holder_alive(campaign: Campaign) -> bool:
    """Whether the process recorded in the lock file lives (on this host; elsewhere it is taken to)."""
    import socket

    words = (campaign.root / ".lock").read_text().split()
    if len(words) < 4 or words[3] != socket.gethostname():
        return bool(words)
    try:
        status = Path(f"/proc/{words[1]}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def absolute(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with potentials, pseudopotential folders and reference files beside it as absolute paths."""
    from aldriver.core.section import beside

    def resolved(ref: str) -> str:
        family, colon, rest = ref.partition(":")
        if (base / ref).is_dir():
            return str((base / ref).resolve())
        if colon and family in ("eam", "mace") and (base / rest).exists():
            return f"{family}:{(base / rest).resolve()}"
        return ref

    label = recipe.label
    if label.reference is not None:
        label = label.model_copy(update={"reference": resolved(label.reference)})
    if label.espresso is not None and (base / label.espresso.pseudo_dir).is_dir():
        folder = (base / label.espresso.pseudo_dir).resolve()
        label = label.model_copy(update={"espresso": label.espresso.model_copy(update={"pseudo_dir": folder})})
    benchmark = beside(recipe.benchmark, base)
    if (foundation := benchmark.forgetting.foundation) is not None:
        forgetting = benchmark.forgetting.model_copy(update={"foundation": resolved(foundation)})
        benchmark = benchmark.model_copy(update={"forgetting": forgetting})
    changes = {"potential": resolved(recipe.potential), "label": label, "benchmark": benchmark}
    return recipe.model_copy(update=changes)


def differences(old: Any, new: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves that differ between two nested structures: (dotted key, old, new)."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for k in sorted(old.keys() | new.keys()):
            found += differences(old.get(k), new.get(k), f"{key}.{k}" if key else str(k))
        return found
    return [] if old == new else [(key, old, new)]


def promoted(campaign: Campaign) -> Path | None:
    """Bundle of the potential the last gate promoted; None before the first gate."""
    g, finished = campaign.frontier()
    last = g if finished else g - 1
    if last < 0:
        return None
    return campaign.potential(campaign.decision(last)["promoted"])


def _frozen(root: Path) -> Recipe:
    from aldriver.core.recipe import load_recipe

    return load_recipe(root / RECIPE_FILE)


def _freeze(recipe: Recipe, root: Path) -> None:
    import yaml

    atomic_write(
        root / RECIPE_FILE, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    )


def _card(campaign: Campaign, recipe: Recipe, *, created: float | None) -> dict[str, Any]:
    """What `status` needs to know of the recipe without reading it."""
    walkers = len(recipe.systems) * len(recipe.explore.temperatures_K) * len(recipe.explore.strains)
    return {
        "id": campaign.id,
        "name": campaign.name,
        "digest": campaign.digest,
        "recipe_sha256": sha256_file(campaign.root / RECIPE_FILE),
        "created": created,
        "potential": recipe.potential,
        "reference": recipe.label.reference or recipe.label.engine,
        "walkers": walkers,
        "generations": recipe.stop.generations,
        "labels_per_generation": recipe.label.budget,
        "max_labels": recipe.stop.max_labels,
        "workers": recipe.resources.workers,
    }
