"""The page of a report: what it shows, that hostile names stay text, and that it sends no request."""

import html
import json
import re
import shutil

import numpy as np
import pytest
from browser import MISSING, available, browser

import torchpure as tp
from torchpure.cli import main
from torchpure.errors import InputError
from torchpure.runs import configure, run
from torchpure.runs.page import plotly_script

pytest.importorskip("plotly", reason="plotly is in the extra [report]")
HOSTILE = '<img src=x onerror="document.title=1">%{y} & `'
COLUMN = "</script><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page about three runs, one with many metrics and a hostile name, and a sweep with a hostile column."""
    folder = tmp_path_factory.mktemp("report")
    fast = {"hidden": "4", "steps": 30}
    run(configure({"target": "sin(x)"} | fast), folder / "first")
    run(configure({"target": "x*z", "domain": "x=0:1,z=0:1", "seed": 3} | fast), folder / "second")
    shutil.copytree(folder / "first", folder / HOSTILE)
    metrics = [
        {"step": step, "loss": 2.0**-step, "learning_rate": 0.1, "gradient_norms": {"core.0.weight": 1.0, HOSTILE: 2.0}}
        | ({"validation_loss": 3.0**-step} if step % 5 == 0 else {})
        for step in range(1, 31)
    ]
    (folder / HOSTILE / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    rows = [
        {"learning_rate": rate, COLUMN: COLUMN, "loss": loss, "status": "done"}
        for rate, loss in [(0.1, 10.0), (0.001, 9.5), (0.01, None), (1.0, float("nan"))]
    ]
    (folder / "sweep").mkdir()
    (folder / "sweep/results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = ("first", "second", HOSTILE, "sweep")
    return tp.report(*(folder / name for name in names), output=folder / "report.html")


def without_script(page):
    return page.read_text().replace(plotly_script(), "")


def test_a_page_shows_results_fits_and_configurations_side_by_side(page):
    text = without_script(page)
    titles = re.findall(r"<h2[^>]*>([^<]*)</h2>", text)
    assert titles == ["Results", "Curves", "Fit and residuals", "By layer", "Sweeps", "Configuration", "Versions"]
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', text)[1])
    shown = [html.unescape(re.sub("<.*?>", "", title)) for title in re.findall(r"<h3[^>]*>(.*?)</h3>", text)]
    runs = [str(page.parent / name) for name in ("first", "second", HOSTILE)]
    fits = [f"{kind}: {name}" for name in runs for kind in ("Fit", "Residuals")]
    sweep = page.parent / "sweep"
    assert shown == [
        "Loss", "learning rate", *fits, f"gradient norms: {runs[2]}", str(sweep), f"loss over learning_rate: {sweep}",
    ]  # fmt: skip
    assert len(charts) == len(shown) - 1
    loss = charts[0]["series"]
    saved = tp.load_run(page.parent / "first").metrics["loss"]
    np.testing.assert_allclose(loss[0]["y"], saved, rtol=1e-8)
    assert [part["name"].split(": ")[1] for part in loss] == [
        "loss", "loss", "loss", "validation loss", "test loss at the end", "test loss at the end",
    ]  # fmt: skip
    assert loss[3]["x"] == [5, 10, 15, 20, 25, 30]
    differs = re.findall(r'<tr class="differs"><th scope="row"><bdi>(\w+)', text)
    assert differs == ["target", "domain", "seed", "command"]
    assert 5e6 > page.stat().st_size > 4e6


def test_hostile_names_are_text(page):
    text = without_script(page)
    assert "<img" not in text
    assert text.count("<script") == 3
    assert text.count("</script") == 3
    assert "owned" in text


def test_the_policy_forbids_all_requests(page):
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', without_script(page))[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert not re.search(r"https?:|\*|unsafe-eval|connect-src", policy)
    assert not re.search(r'(?:src|href)="(?!#|data:,)', without_script(page))


def test_tables_have_captions_and_headers_and_references_lead_somewhere(page):
    text = without_script(page)
    tables = re.findall(r"<table.*?</table>", text, re.DOTALL)
    assert len(tables) > 8
    assert all("<caption>" in table and '<th scope="col"' in table for table in tables)
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len({*ids})
    referred = re.findall(r'aria-(?:labelledby|describedby)="([^"]*)"|href="#([^"]*)"|data-chart="([^"]*)"', text)
    assert {name for names in referred for part in names for name in part.split()} <= {*ids}


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_curves_stand_out(page, scheme):
    blocks = re.findall(r":root \{(.*?)\}", without_script(page), re.DOTALL)
    colors = dict(re.findall(r"--(\w+): (#\w{6})", blocks[scheme]))
    assert len(blocks) == 2
    for name in ("ink", "soft", "focus"):
        assert contrast(colors[name], colors["paper"]) >= 4.5, name
    for name in ("mark", "band"):
        assert contrast(colors["ink"], colors[name]) >= 4.5, name
    for name in [name for name in colors if re.fullmatch(r"c\d", name)]:
        assert contrast(colors[name], colors["paper"]) >= 3, name


@pytest.mark.skipif(not available(), reason=MISSING)
def test_a_browser_shows_the_page_and_sends_no_request(page):
    with browser() as web:
        address = page.as_uri()
        web.open(address)
        wait = "return new Promise((done) => { const wait = () => (%s) ? done(true) : setTimeout(wait, 20); wait(); })"
        chart = 'document.getElementById("c0")'
        assert web.run(wait % f"{chart}._fullLayout")
        assert web.run("return document.images.length + document.scripts.length") == 3
        assert web.run("return document.title").startswith("Report on ")

        web.press("\ue004")  # tab: the first stop is the skip link
        assert web.run("return document.activeElement.className") == "skip"
        web.press("\ue007")
        assert web.run("return document.activeElement.id") == "main"

        span = f"const [low, high] = {chart}._fullLayout.xaxis.range; return high - low"
        whole = web.run(span)
        web.click('button[data-chart="c0"][data-action="in"]')
        assert web.run(span) == pytest.approx(whole / 2)
        web.run(f"{chart}.focus()")
        web.press("-")
        assert web.run(span) == pytest.approx(whole)
        web.press("\ue014")
        assert web.run(f"return {chart}._fullLayout.xaxis.range[0]") == pytest.approx(0.2 * whole, abs=0.1 * whole)
        web.press("0")
        assert web.run(span) == pytest.approx(whole)
        kind = f"return {chart}._fullLayout.yaxis.type"
        assert web.run(kind) == "log"
        web.click('button[data-chart="c0"][data-action="log"]')
        assert web.run(kind) == "linear"

        web.point("#c0 .nsewdrag")
        assert web.run(wait % f"{chart}.querySelector('.hoverlayer text')")
        assert web.run(f"return {chart}.querySelectorAll('a, image').length") == 0

        cells = "return Array.from(document.getElementById('t0').tBodies[0].rows, (row) => row.cells[2].textContent)"
        assert web.run(cells) == ["9.5", "10", "-", "not finite"]
        web.click('#t0 button[data-sort="0"]')
        assert web.run(cells) == ["9.5", "-", "10", "not finite"]
        web.click('#t0 button[data-sort="0"]')
        assert web.run(cells) == ["not finite", "10", "-", "9.5"]
        assert web.run("return document.querySelector('#t0 th').getAttribute('aria-sort')") == "descending"
        assert (
            web.run("return document.getElementById('t0-status').textContent") == "sorted by learning_rate, descending"
        )

        paper = f"return {chart}._fullLayout.paper_bgcolor"
        assert web.run(paper) == "#ffffff"
        web.emulate(prefers_color_scheme="dark")
        assert web.run(wait % f"{chart}._fullLayout.paper_bgcolor === '#15181d'")

        assert web.messages() == []
        assert [url for url in web.requests() if not url.startswith("data:")] == [address]
        refused = "return fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')"
        assert web.run(refused) == "refused"
        assert "Content Security Policy" in " ".join(web.messages())


def test_the_command_writes_a_page(page, here, capsys):
    shutil.copytree(page.parent / "first", here / "runs/first")
    assert main(["report", "runs/first"]) == 0
    assert capsys.readouterr().out == "1 run, 4.9 MB\nreport.html\n"
    assert "Report on runs/first" in (here / "report.html").read_text()


def test_classes_have_results_of_their_own_and_a_confusion_matrix(here):
    rows = "".join(f"{i / 40},{'high<b>' if i > 19 else 'low'}\n" for i in range(40))
    (here / "d.csv").write_text("x,kind\n" + rows)
    done = run(configure({"target": "d.csv", "column": "kind", "hidden": "4", "steps": 300}))
    text = without_script(tp.report(done.directory))
    cells = [re.sub("<[^>]*>", " ", row).split() for row in re.findall(r"<tr.*?</tr>", text)]
    assert ["accuracy", f"{done.fit.measured['accuracy']:.4g}"] in cells
    (high, *_), (low, *_) = ([row for row in cells if row[:2] == ["true", name]] for name in ("high&lt;b&gt;", "low"))
    found = [[int(count) for count in row[2:]] for row in (high, low)]
    assert found == done.fit.measured["confusion"]
    assert "classes have no residuals" in text
    path = done.directory / "metrics.jsonl"
    *lines, last = path.read_text().splitlines()
    changed = json.loads(last) | {"confusion": [[1, 2], "x"]}
    path.write_text("\n".join([*lines, json.dumps(changed)]) + "\n")
    assert "predicted low" not in without_script(tp.report(done.directory, force=True))


def test_several_targets_have_a_fit_each_and_validation_points_are_shown(here):
    (here / "d.csv").write_text("x,y,z\n" + "".join(f"{i},{2 * i},{i * i}\n" for i in range(40)))
    options = {"target": "d.csv", "column": "y,z", "validation_points": "0.2", "hidden": "4", "steps": 5}
    done = run(configure(options))
    text = without_script(tp.report(done.directory))
    for target in ("y", "z"):
        assert f">Fit: {done.directory}, {target}</h3>" in text
    assert "validation points: 8 points" in text
    assert ">validation: root mean squared error<" in text


def test_a_fit_that_cannot_be_shown_says_why(here):
    (here / "d.csv").write_text("x,y\n" + "".join(f"{i},{2 * i}\n" for i in range(20)))
    done = run(configure({"target": "d.csv", "column": "y", "hidden": "4", "steps": 2}))
    (here / "d.csv").unlink()
    text = without_script(tp.report(done.directory))
    assert "the fit is not shown: d.csv: no such file or directory" in text
    assert "Fit: " not in text


def test_bad_input_is_one_line(page, here, capsys, listing):
    shutil.copytree(page.parent / "first", here / "runs/first")
    (here / "bad").mkdir()
    (here / "bad/results.jsonl").write_text('{"loss": 1}\n[]\n')
    for words, message in (
        (["runs/frist"], "did you mean `runs/first`?"),
        (["bad"], "line 2: wanted an object, got []"),
        (["runs/first", "--output", "no/r.html"], "cannot be written"),
        (["runs/first", "--output", "runs"], "is no name for a file"),
    ):
        assert main(["report", *words]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    assert listing(here) == ["bad", "runs"]
    with pytest.raises(InputError, match="wanted 1 to 100 runs, got 0"):
        tp.report()


def test_without_plotly_the_error_says_what_to_install(page, here, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "plotly", None)
    with pytest.raises(InputError, match=r"needs plotly: pip install 'torchpure\[report\]'"):
        tp.report(page.parent / "first")
