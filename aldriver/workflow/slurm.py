"""FireWorks' Slurm adapter under its full name, and with what ``sbatch`` says when it refuses a job.

By its short name FireWorks would import all its packages, tests included, to find it. See ``cluster.py``.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter

from aldriver.workflow.cluster import WORDS


class SlurmAdapter(CommonAdapter):
    """As ``CommonAdapter`` with ``_fw_q_type: SLURM``."""

    _fw_name = "{{aldriver.workflow.slurm.SlurmAdapter}}"

    def submit_to_queue(self, script_file: str) -> str | None:
        """Id of the job; None when it was refused (its words: ``FW_submit.error``)."""
        command = [self.q_commands[self.q_type]["submit_cmd"], script_file]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode:
            Path(script_file).with_name(WORDS).write_text(ran.stderr.strip())
            return None
        return str(self._parse_jobid(ran.stdout))
