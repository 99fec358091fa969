"""plotly's script, as the Python package has it: 4.8 MB, so that a page needs no network."""

from pathlib import Path

from torchpure.errors import InputError


def plotly_script() -> str:
    """Return the text of plotly.js.

    Raises:
        InputError: plotly is not installed.
    """
    try:
        import plotly
    except ImportError:
        raise InputError("report: needs plotly: pip install 'torchpure[report]'") from None
    path = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    script = path.read_text(encoding="utf-8")
    # inside of a string of the script, both would change how a browser reads the rest of the page
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--").replace("\r\n", "\n")
