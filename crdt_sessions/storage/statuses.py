"""The statuses that sessions and runs are listed by: of several, each is read in order by itself and then merged."""

SESSION_STATUSES = ("active", "closed", "archived")
RUN_STATUSES = ("queued", "running", "suspended", "completed", "failed", "cancelled", "interrupted")
