"""HTML pages about runs, from plain data: each page is one file that sends no request."""

from ._fits import Confusion, Fitted, Points, confusion
from ._page import Page, PageRun, PageSweep, write_page
from ._plotly import plotly_script

__all__ = [
    "Confusion",
    "Fitted",
    "Page",
    "PageRun",
    "PageSweep",
    "Points",
    "confusion",
    "plotly_script",
    "write_page",
]
