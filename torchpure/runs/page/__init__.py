"""HTML pages about runs, from plain data: each page is one file that sends no request."""

from ._fits import Fitted, Points
from ._page import Page, PageRun, PageSweep, write_page
from ._plotly import plotly_script

__all__ = ["Fitted", "Page", "PageRun", "PageSweep", "Points", "plotly_script", "write_page"]
