"""The page: puts summary, figures and tables into one HTML file with style, script and Plotly inside it."""

from __future__ import annotations

import time
from html import escape
from importlib.resources import files
from string import Template

import yaml

from aldriver import __version__
from aldriver.core.records import dumps
from aldriver.report import detection, figures, summary, tables, verdict
from aldriver.report.data import Campaign
from aldriver.report.figures import Figure
from aldriver.report.promise import promise_table

# The policy makes the promise binding: a browser refuses any request the page might try.
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>$style</style>
</head>
<body>
<a class="skip" href="#main">Skip to the results</a>
<header>
$header
</header>
<nav aria-label="Sections">$links</nav>
<main id="main">
$sections
</main>
<footer>Written by aldriver $version on $now$source. This page loads nothing from a network.</footer>
<script type="application/json" id="figures">$specs</script>
<script>$plotly</script>
<script>$script</script>
</body>
</html>
""")

_LEGEND = (
    f'Deviation from the reference: <span class="dev good">up to {100 * tables.GOOD:.0f} %</span> '
    f'<span class="dev fair">up to {100 * tables.FAIR:.0f} %</span> <span class="dev bad">more</span>. '
)
_MOODS = {"finished": "good", "under way": "fair"}


def render(campaign: Campaign) -> str:
    """The whole page of a campaign as text."""
    groups = {
        "errors": figures.error_figures(campaign),
        "scores-benchmark": verdict.campaign_figures(campaign),
        "parity": figures.parity_figures(campaign),
        "scores": detection.distribution_figures(campaign),
        "explored": [detection.map_figure(campaign), detection.coverage_figure(campaign)],
        "cost": [figures.cost_figure(campaign)],
    }
    word, about = summary.state(campaign)
    tiles = "".join(
        f"<div><dt>{escape(t.title)}</dt><dd><b>{escape(t.value)}</b> <span>{escape(t.note)}</span></dd></div>"
        for t in summary.tiles(campaign)
    )
    header = (
        f'<p class="kicker">aldriver campaign report</p>\n<h1>{escape(campaign.name)}</h1>\n'
        f'<p class="state"><span class="tag {_MOODS.get(word, "")}">{escape(word)}</span> {escape(about)}</p>\n'
        f'{_summary(campaign)}\n<dl class="tiles">{tiles}</dl>\n{_missing(campaign)}'
    )
    return document(
        title=f"{campaign.name}: aldriver report",
        header=header,
        sections=_sections(campaign, groups),
        figures=[f for group in groups.values() for f in group],
        source=" from the files of the campaign",
    )


def document(
    *, title: str, header: str, sections: list[tuple[str, str, str, str]], figures: list[Figure], source: str = ""
) -> str:
    """A page that holds all it needs.

    Parameters
    ----------
    header
        HTML.
    sections
        Key, title, introduction (HTML) and body (HTML) of each.
    figures
        Those that the bodies place with :func:`grid`.
    source
        What it was made from, as the footer says it.
    """
    from plotly.offline import get_plotlyjs

    here = files("aldriver.report")
    specs = {f.key: f.spec for f in figures if f.spec is not None}
    return _PAGE.substitute(
        title=escape(title),
        style=here.joinpath("style.css").read_text(),
        header=header,
        links="".join(f'<a href="#{key}">{name}</a>' for key, name, _, _ in sections),
        sections="\n".join(
            f'<section id="{key}"><h2>{name}</h2>\n<p class="lead">{lead}</p>\n{body}\n</section>'
            for key, name, lead, body in sections
        ),
        version=escape(__version__),
        now=time.strftime("%Y-%m-%d %H:%M"),
        source=escape(source),
        specs=script_safe(dumps(specs, indent=None)),
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
        script=here.joinpath("page.js").read_text(),
    )


def script_safe(text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _sections(campaign: Campaign, groups: dict[str, list[Figure]]) -> list[tuple[str, str, str, str]]:
    """Key, title, introduction (HTML) and body of each section."""
    label = campaign.recipe.get("label")
    settings = label if isinstance(label, dict) else {}
    engine = escape(str(settings.get("reference") or settings.get("engine") or "the reference"))
    return [
        ("errors", "Errors", "How far energies, forces and stresses are from the reference.", grid(groups["errors"])),
        (
            "benchmark",
            "Benchmark",
            _LEGEND + "A value whose relaxation did not converge is shown, but never counted.",
            grid(groups["scores-benchmark"])
            + tables.benchmark_table(campaign)
            + _details("Beside published values", verdict.published_table(campaign)),
        ),
        ("decisions", "Decisions", "What the gate decided after each generation, and why.", tables.timeline(campaign)),
        ("parity", "Parity", "Predicted against reference, before and after.", grid(groups["parity"])),
        (
            "detection",
            "Detection",
            "What the detector promises, what audit labels measured, and how unusual frames look to it.",
            promise_table(campaign) + grid(groups["scores"]),
        ),
        (
            "exploration",
            "Exploration",
            "Where MD with each generation's potential went.",
            grid(groups["explored"]) + _details("All walkers", tables.walker_table(campaign)),
        ),
        ("labels", "Labels", f"Every frame sent to {engine}, and what came back.", tables.label_table(campaign)),
        (
            "cost",
            "Cost",
            "Where the computer time went.",
            grid(groups["cost"]) + _details("By generation", tables.cost_table(campaign)),
        ),
        ("recipe", "Recipe", "The settings of this campaign, defaults filled in.", _recipe(campaign)),
    ]


def _summary(campaign: Campaign) -> str:
    return "".join(f'<p class="summary">{escape(line)}</p>' for line in summary.sentences(campaign))


def _missing(campaign: Campaign) -> str:
    notes = summary.missing(campaign)
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<aside class="notes" aria-label="Not in this report"><h2>Not in this report</h2><ul>{items}</ul></aside>'


def _recipe(campaign: Campaign) -> str:
    if not campaign.recipe:
        return tables.nothing("recipe.yaml could not be read.")
    text = yaml.safe_dump(campaign.recipe, sort_keys=False, allow_unicode=True, width=100)
    body = f'<pre class="scroll tall" tabindex="0" role="region" aria-label="Recipe">{escape(text)}</pre>'
    return _details("recipe.yaml", body)


def _details(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>{body}</details>" if body else ""


def grid(group: list[Figure]) -> str:
    """Figures side by side."""
    return f'<div class="grid n{len(group)}">' + "\n".join(_figure(f) for f in group) + "</div>"


def _figure(figure: Figure) -> str:
    key, title = escape(figure.key), escape(figure.title)
    if figure.spec is None:
        return f"<figure><h3>{title}</h3>{tables.nothing(figure.missing)}</figure>"
    save = f'<button type="button" data-save="{key}" aria-label="Save the figure {title} as SVG">save</button>'
    asked = figure.spec["layout"].get("height") if figure.spec else None
    style = f' style="height: {asked}px"' if asked else ""
    label = escape(figure.alt)
    plot = f'<div class="plot" id="plot-{key}" data-figure="{key}" role="img" aria-label="{label}"{style}></div>'
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>"
    return f'<figure><div class="head"><h3>{title}</h3>{save}</div>{plot}{caption}</figure>'
