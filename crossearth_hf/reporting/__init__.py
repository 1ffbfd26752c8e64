"""From report folders to tables, figures and one self-contained page; `report.write_report` is the job."""
