"""Background jobs, cron and time-window pipelines in the Postgres you already run."""
