"""Workflow room: the only one that knows FireWorks; launches, resumes and watches campaigns."""
