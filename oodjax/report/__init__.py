"""A study's results as a page: verdicts, figures and tables in one folder that opens from the disk."""

from oodjax.report.data import ReportError as ReportError
from oodjax.report.page import write as write
