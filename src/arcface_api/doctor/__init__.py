"""Examines a machine, an installation and their settings, and reports what is wrong and what to do about it.

    Subject ──examine──▶ each Check of CHECKS ──▶ findings ──▶ Report ──as_text, to_json──▶ a person, a bug report

This package itself needs the standard library alone, because it is also for installations in which something is
missing. A check's module is imported when it runs, so that a package that is missing costs the checks that need it.
"""

from arcface_api.doctor.checks import CHECKS, Check, examine
from arcface_api.doctor.finding import Finding, Report, Status
from arcface_api.doctor.subject import Places, Subject
from arcface_api.doctor.text import as_text

__all__ = ["CHECKS", "Check", "Finding", "Places", "Report", "Status", "Subject", "as_text", "examine"]
