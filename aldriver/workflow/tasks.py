"""FireTasks: each reads campaign, generation and index from its spec and does one stage. No science here.

The graph they stand in is ``generation.py``; ``rlaunch`` finds the classes by their full names, without configuration.
"""

from __future__ import annotations

from typing import Any

from fireworks import FireTaskBase, FWAction

from aldriver.workflow.campaign import Campaign, open_campaign
from aldriver.workflow.stages import run_stage

LABEL_ATTEMPTS = 3
"""How often a label's task is put on the launchpad before its generation goes on without it."""


class StageTask(FireTaskBase):
    """Does the stage named by its class."""

    stage = ""

    def run_task(self, fw_spec: dict[str, Any]) -> FWAction:
        """Do the stage; what follows from it is said by :meth:`after`."""
        campaign = open_campaign(fw_spec["dir"])
        generation = int(fw_spec["generation"])
        run_stage(self.stage, campaign, generation, int(fw_spec.get("index") or 0))
        return self.after(campaign, generation)

    def after(self, campaign: Campaign, generation: int) -> FWAction:
        """What the launchpad has to do next."""
        return FWAction()


class ReferenceTask(StageTask):
    """The reference's properties and the test set."""

    _fw_name = "{{aldriver.workflow.tasks.ReferenceTask}}"
    stage = "reference"


class BaselineTask(StageTask):
    """The foundation and its first detector."""

    _fw_name = "{{aldriver.workflow.tasks.BaselineTask}}"
    stage = "baseline"


class ExploreTask(StageTask):
    """One walker."""

    _fw_name = "{{aldriver.workflow.tasks.ExploreTask}}"
    stage = "explore"


class SelectTask(StageTask):
    """Chooses the frames, and puts a task for each label and their join in between."""

    _fw_name = "{{aldriver.workflow.tasks.SelectTask}}"
    stage = "select"

    def after(self, campaign: Campaign, generation: int) -> FWAction:
        """Detour: one label task per selected frame that has none yet, then the join."""
        from aldriver.workflow.generation import labels_workflow

        detour = labels_workflow(campaign, generation)
        return FWAction() if detour is None else FWAction(detours=detour)


class LabelTask(StageTask):
    """One label, or a pack of them."""

    _fw_name = "{{aldriver.workflow.tasks.LabelTask}}"
    stage = "label"

    def run_task(self, fw_spec: dict[str, Any]) -> FWAction:
        """Label; what a signal (preemption, the job's time limit) leaves undone is put back as a detour."""
        from aldriver.workflow import interrupt, packs
        from aldriver.workflow.generation import pack_workflow

        campaign, generation = open_campaign(fw_spec["dir"]), int(fw_spec["generation"])
        indices = packs.indices_of(fw_spec)
        with interrupt.holding():
            packs.run_pack(campaign, generation, indices)
            left = packs.unlabelled(campaign, generation, indices) if interrupt.pending() else []
            if not left:
                return FWAction()
            campaign.ledger.append("interrupted", stage=self.stage, generation=generation, left=left)
            again = packs.interruptions(fw_spec, left)
            return FWAction(detours=pack_workflow(campaign, generation, left, interruptions=again))


class CollectTask(StageTask):
    """Gathers the labels."""

    _fw_name = "{{aldriver.workflow.tasks.CollectTask}}"
    stage = "collect"

    def run_task(self, fw_spec: dict[str, Any]) -> FWAction:
        """Labels whose task broke before they had a value or a reason are tried again first, as a detour."""
        from aldriver.workflow.generation import labels_workflow

        campaign, generation = open_campaign(fw_spec["dir"]), int(fw_spec["generation"])
        attempt = int(fw_spec.get("attempt") or 1)
        if attempt < LABEL_ATTEMPTS:
            detour = labels_workflow(campaign, generation, attempt=attempt + 1)
            if detour is not None and len(detour.fws) > 1:
                return FWAction(detours=detour)
        return super().run_task(fw_spec)


class TrainTask(StageTask):
    """Refines the potential."""

    _fw_name = "{{aldriver.workflow.tasks.TrainTask}}"
    stage = "train"


class RelaxTask(StageTask):
    """Makes relaxations for the benchmark, beside others of its kind."""

    _fw_name = "{{aldriver.workflow.tasks.RelaxTask}}"
    stage = "relax"


class BenchmarkTask(StageTask):
    """Measures the potential."""

    _fw_name = "{{aldriver.workflow.tasks.BenchmarkTask}}"
    stage = "benchmark"


class GateTask(StageTask):
    """Decides, and makes sure that the next generation is on the launchpad, once."""

    _fw_name = "{{aldriver.workflow.tasks.GateTask}}"
    stage = "gate"

    def after(self, campaign: Campaign, generation: int) -> FWAction:
        """The next generation is a workflow of its own, unless the campaign has ended."""
        from aldriver.workflow.generation import ensure_generation, finish

        nxt, finished = campaign.frontier()
        if finished:
            finish(campaign)
        else:
            ensure_generation(self.launchpad, campaign, nxt)
        return FWAction()
