"""Configurations of earlier releases name ``RunCheckpoint`` here."""

from vitlocal.runs import RunCheckpoint

__all__ = ["RunCheckpoint"]
