"""The look of a report: one HTML page with its style inside, light and dark, from a phone to a desk."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

escape = html.escape


@dataclass(frozen=True)
class Section:
    """One part of the page: what it is called, what to look for, and its content."""

    key: str  # anchor
    title: str
    look: str = ""  # one or two sentences: what to look for
    body: str = ""  # HTML


def number(value: float) -> str:
    """A number as people read it: three significant digits, thousands apart."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 999.5:
        return f"{value:,.0f}"
    if size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.3g}"


def picture(pixels: np.ndarray, alt: str) -> str:
    """An image inside the page. Shapes: pixels [H,W,3] or, with transparency, [H,W,4] uint8."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    height, width = pixels.shape[:2]
    return (
        f'<img class="pixels" alt="{escape(alt)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{data}">'
    )


STATES = (
    '<p class="look terms"><b>z</b> is what a frame shows, <b>h</b> the memory that prediction needs, <b>p</b> where '
    "the agent is: a pose, summed up from the increments of its moves.</p>"
)  # for who has not read the docs


def named(name: str) -> str:
    """A technical name, which a narrow column breaks after an underscore or a dot and nowhere else."""
    return f'<span class="mono">{re.sub(r"(?<=[_.])", "<wbr>", escape(name))}</span>'


def missing(what: str) -> str:
    """The sentence of a section whose input is not there."""
    return f'<p class="missing">{escape(what)}</p>'


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """A plain table of cells that are HTML already."""
    top = f"<thead><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table class="plain">{top}<tbody>{body}</tbody></table></div>'


def details(summary: str, content: str) -> str:
    """Content that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def page(title: str, subtitle: str, sections: Sequence[Section], *, style: str = "") -> str:
    """The whole document; style: further rules."""
    links = "".join(f'<a href="#{part.key}">{escape(part.title)}</a>' for part in sections[1:])
    parts = "".join(_section(part, first=part is sections[0]) for part in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{STYLE}{style}</style></head><body>'
        f"<header><p>{escape(subtitle)}</p><h1>{escape(title)}</h1></header><main>{parts}</main>"
        f"</body></html>\n"
    ).replace("<!--contents-->", f"<nav>{links}</nav>")


def _section(part: Section, first: bool) -> str:
    title = "" if first else f"<h2>{escape(part.title)}</h2>"
    look = f'<p class="look">{part.look}</p>' if part.look else ""
    return f'<section id="{part.key}">{title}{look}{part.body}</section>{"<!--contents-->" if first else ""}'


STYLE = """
:root{--paper:#fff;--ink:#1c2026;--soft:#626b78;--hair:#e3e6ea;--wash:#f5f6f8;--x:#7a828e;--z:#2f66b3;
--h:#b06f12;
--p:#26805b;--bad:#c4372c;--good:#26805b;--line:#2f66b3;--band:#2f66b326}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e5e8ec;--soft:#98a1ad;--hair:#2b3138;
--wash:#1b1f25;
--x:#8f98a5;--z:#78a9ec;--h:#dba255;--p:#5cbd93;--bad:#f0766b;--good:#5cbd93;--line:#78a9ec;
--band:#78a9ec2e}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",
Roboto,
"Helvetica Neue",sans-serif;font-variant-numeric:tabular-nums}
header,main{max-width:1080px;margin:0 auto;padding:0 24px}
header{padding-top:44px}
header p{margin:0;color:var(--soft);font-size:13px}
h1{font-size:27px;line-height:1.25;font-weight:650;letter-spacing:-.01em;margin:2px 0 14px;
overflow-wrap:anywhere}
h2{font-size:18px;font-weight:650;margin:0 0 4px}
h3{font-size:14px;font-weight:650;margin:26px 0 8px}
section{padding:34px 0;border-top:1px solid var(--hair)}
section:first-child{border:0;padding:0 0 22px}
p{margin:0 0 12px;max-width:74ch}
.look{color:var(--soft);margin-bottom:18px}
.terms{margin:16px 0 12px}
.missing{color:var(--soft);font-style:italic}
.lead{font-size:16.5px;max-width:70ch}
.warn{border-left:3px solid var(--bad);padding:2px 0 2px 12px}
code,.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
font-size:.87em}code{white-space:nowrap}
.latent-graph{max-width:100%;height:auto}.ticks i{font-style:normal}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;padding:12px 0;border-top:1px solid var(--hair);font-size:13px}
a{color:inherit;text-decoration-color:var(--hair);text-underline-offset:3px}
p a{color:var(--z)}
a:hover{text-decoration-color:currentColor}
figure{margin:0 0 26px}
svg{display:block}
figure{overflow-x:auto}figure>svg{max-width:100%;height:auto}figure.wide>svg,figure.wide>img{min-width:620px}
.scroll{overflow-x:auto;margin:0 0 16px;-webkit-overflow-scrolling:touch}
.pixels{display:block;max-width:100%;height:auto;image-rendering:pixelated;border-radius:3px}
table{border-collapse:collapse;font-size:13.5px}
.plain td,.plain th{text-align:left;vertical-align:top;padding:5px 20px 5px 0;
border-bottom:1px solid var(--hair)}
.plain th{color:var(--soft);font-weight:500;font-size:12.5px}
.plain td{overflow-wrap:break-word;max-width:74ch}.plain .any{overflow-wrap:anywhere;display:block;min-width:130px}
details{margin:0 0 14px}summary{cursor:pointer;color:var(--soft);font-size:13.5px}
details>*+*{margin-top:10px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(212px,1fr));gap:10px;margin:22px 0 6px}
.tile{background:var(--wash);border-radius:8px;padding:12px 14px 11px}
.tile b{display:block;font-size:23px;line-height:1.2;font-weight:600;letter-spacing:-.01em}
.tile span{display:block;font-size:13px}.tile small{display:block;color:var(--soft);font-size:12px;
line-height:1.4;margin-top:3px}
.tile small span{display:inline;font-size:inherit}
.good{color:var(--good)}.bad{color:var(--bad)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(222px,1fr));gap:22px 26px;
margin:0 0 18px}
.chart{margin:0;min-width:0;display:flex;flex-direction:column}
.chart .top{display:flex;justify-content:space-between;gap:10px;align-items:baseline;font-size:13px}
.chart .top b{font-weight:600;overflow-wrap:anywhere}.chart .top span{white-space:nowrap}
.chart .sub{color:var(--soft);font-size:12px;line-height:1.4;min-height:17px;margin-bottom:5px}
.plot{position:relative;height:84px;margin-top:auto;border-bottom:1px solid var(--hair)}
.plot svg{position:absolute;inset:0;width:100%;height:100%;overflow:visible}
.plot path{fill:none;stroke:var(--line);stroke-width:1.5;vector-effect:non-scaling-stroke;
stroke-linejoin:round}
.plot path.band{fill:var(--band);stroke:none}
.plot path.second{stroke:var(--h)}.plot path.third{stroke:var(--p)}.plot path.quiet{stroke:var(--soft);
stroke-width:1}
.plot path.bar{stroke:var(--soft);stroke-dasharray:3 3;stroke-width:1}
.plot circle,.plot rect{fill:var(--line)}
.ticks{display:flex;justify-content:space-between;color:var(--soft);font-size:11px;line-height:1.5;
white-space:nowrap}
.shares{display:grid;grid-template-columns:max-content minmax(60px,1fr) max-content;gap:3px 12px;
align-items:center;
font-size:13px;max-width:760px;margin-bottom:26px}
.shares i{display:block;height:9px;border-radius:2px;background:var(--line);min-width:1px}
.shares span:nth-child(3n){text-align:right;color:var(--soft)}
.reach th{font-weight:400}
.reach thead th{vertical-align:bottom;padding:0 0 8px;width:27px;min-width:27px;height:var(--head,168px);
position:relative}
.reach thead th>span{position:absolute;left:15px;bottom:8px;white-space:nowrap;transform:rotate(-55deg);
transform-origin:0 50%;font-size:12px}
.reach tbody th{text-align:left;white-space:nowrap;padding:0 14px 0 0;position:sticky;left:0;
background:var(--paper);z-index:1}
.reach tbody td{padding:1.5px;text-align:center}
.reach td.w,.reach th.w{color:var(--soft);padding-right:10px;text-align:right;font-size:12px}
.reach tr:hover th,.reach tr:hover td{background:var(--wash)}
.cell{display:block;width:22px;height:22px;border-radius:4px;margin:0 auto;background:var(--wash)}
.cell.on{background:color-mix(in srgb,var(--z) var(--t,100%),var(--wash))}
.cell.hollow{background:none;box-shadow:inset 0 0 0 2px var(--z)}
.cell.stray{background:var(--bad)}
.key{display:flex;flex-wrap:wrap;gap:6px 20px;font-size:12.5px;color:var(--soft);margin:0 0 16px;
align-items:center}
.key span{display:inline-flex;gap:7px;align-items:center}.key .cell{width:14px;height:14px;
border-radius:3px;margin:0}
.reach.heat{margin-right:110px}.reach.heat thead th{width:50px;min-width:50px}
.reach.heat thead th>span{left:24px}
.heat tbody td{width:50px;min-width:50px;height:23px;font-size:11.5px;padding:0;text-align:center}
.heat th{font-weight:400;text-align:left;padding-right:12px;white-space:nowrap}
.heat:not(.reach) thead th{text-align:center;padding:0;color:var(--soft);font-size:12px}
.side{display:flex;flex-wrap:wrap;gap:0 44px}.side>*{max-width:100%}
.rows{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:0 12px;font-size:12px;
color:var(--soft);
align-items:stretch;margin-bottom:26px}.rows img{align-self:start}.rows>div{display:flex;
flex-direction:column;justify-content:space-around;text-align:right}
@media (max-width:640px){header,main{padding-left:16px;padding-right:16px}header{padding-top:26px}
h1{font-size:22px}
.lead{font-size:15.5px}.tiles{grid-template-columns:1fr 1fr}.tile b{font-size:20px}.tile{padding:10px 12px}
section{padding:26px 0}.charts{grid-template-columns:1fr 1fr;gap:20px 16px}
.chart .top{flex-direction:column;gap:0}
.shares{grid-template-columns:minmax(90px,max-content) minmax(40px,1fr) max-content;font-size:12px}
.rows{font-size:10px;gap:0 7px}.ticks{font-size:10px}.ticks i{display:none}.plain td,
.plain th{padding-right:12px}}
@media print{section{break-inside:avoid}nav{display:none}}
"""
