"""How a report looks: on paper, on a telephone, on a wide screen, light and dark."""

# Colours are those of Okabe and Ito (2008, "Color Universal Design"), lighter in the
# dark; `charts` names them.
STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1d1f23; --soft: #5d636d;
  --rule: #e3e5e9; --wash: #f6f7f9; --mark: #fff3d6; --right: #0072b2; --wrong: #d55e00;
  --c0: #555; --c1: #d55e00; --c2: #0072b2; --c3: #009e73; --c4: #b0568a; --c5: #c98500;
  --c6: #3a9bd4 }
@media (prefers-color-scheme: dark) { :root { --paper: #15171b; --ink: #e8eaee;
  --soft: #a2a8b3; --rule: #2e323a; --wash: #1d2026; --mark: #453a1c; --right: #56b4e9;
  --wrong: #ff8a3d; --c0: #b5b5b5; --c1: #ff8a3d; --c2: #56b4e9; --c3: #2fc79a;
  --c4: #e39bc4; --c5: #f0b840; --c6: #9fd4f5 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif }
main { max-width: 84rem; margin: 0 auto; padding: 1.5rem clamp(.8rem, 3vw, 2.5rem) 4rem;
  overflow-wrap: anywhere }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-top: .9rem;
  border-top: 1px solid var(--rule) }
h3 { font-size: .95rem; margin: 0 0 .3rem; font-weight: 600 }
p { margin: .4rem 0; max-width: 62rem } .soft, small { color: var(--soft) }
small { font-size: .8rem } code { font-size: .86em }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .8rem 0 }
a { color: var(--right) }
.note { background: var(--mark); padding: .5rem .8rem; border-radius: .4rem }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1rem 0 }
.tile { flex: 1 1 8.5rem; max-width: 14rem; background: var(--wash);
  border-radius: .6rem; padding: .7rem .9rem }
.tile b { display: block; font-size: 1.45rem; line-height: 1.25; font-weight: 650 }
.grid { display: grid; gap: 1.2rem 1.6rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)) }
figure { margin: 0; min-width: 0 } figcaption { font-size: .9rem; font-weight: 600 }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; margin: .3rem 0 .8rem;
  font-size: .88rem } .legend span { white-space: normal }
.scroll { overflow-x: auto; margin: .6rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
  font-size: .9rem }
th, td { padding: .34rem .8rem .34rem 0; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--rule); white-space: nowrap }
th { font-weight: 600; color: var(--soft) }
th:first-child, td:first-child, table.words td { text-align: left }
td:first-child, table.words td { white-space: normal }
td:first-child { min-width: 8.5rem; max-width: 24rem }
tr.differs td { background: var(--mark) }
table.words td, .settings dd { overflow-wrap: anywhere }
.settings { columns: 21rem; column-gap: 2rem; font-size: .85rem; margin: .5rem 0 }
.settings div { display: flex; gap: .6rem; justify-content: space-between;
  break-inside: avoid; border-bottom: 1px solid var(--rule); padding: .12rem .3rem }
.settings dd { margin: 0; text-align: right } .settings dt { color: var(--soft) }
.settings .differs { background: var(--mark) } .settings .differs dt { color: inherit }
summary { cursor: pointer; color: var(--soft) }
.pictures { display: grid; gap: .9rem .8rem; margin: .6rem 0 1.4rem;
  grid-template-columns: repeat(auto-fill, minmax(6.4rem, 1fr)) }
.pictures img { width: 100%; max-width: 6.4rem; aspect-ratio: 1; object-fit: contain;
  image-rendering: pixelated; background: var(--wash); border-radius: .3rem }
.pictures figcaption { font-weight: 400; font-size: .8rem; line-height: 1.3 }
svg { display: block; width: 100%; height: auto; max-width: 40rem;
  font: 11px system-ui, "DejaVu Sans", sans-serif }
svg.swatch { display: inline-block; width: 34px; height: 14px; vertical-align: -2px;
  margin-right: .35rem; flex: none }
svg text { fill: var(--soft) } .tick, .axis, .cell { text-anchor: middle }
.left, .value { text-anchor: end } .up { text-anchor: start }
svg .row, svg .value { fill: var(--ink) } .row { font-size: 12px }
.rule { stroke: var(--rule); fill: none }
.line { stroke: var(--c); stroke-width: 2; fill: none } .band { fill: var(--c);
  fill-opacity: .2 } circle, rect, g > path { fill: var(--c) }
g > path.line, g > path.bar { fill: none } .bar { stroke: var(--c); stroke-width: 3 }
.hollow { stroke: var(--c); stroke-width: 1.5; fill: var(--paper) !important }
.seed { stroke: var(--c); stroke-opacity: .55; stroke-width: 1.3 }
.diagonal { stroke: var(--soft); stroke-dasharray: 3 4; fill: none }
.paper { fill: var(--wash) } .cell { font-size: 10px; fill: var(--ink) }
.over { fill: var(--paper) } .right, .heat { fill: var(--right) }
.wrong { fill: var(--wrong) } .trace { stroke: var(--wrong);
  stroke-width: 2; fill: none } .casing { stroke: var(--paper); stroke-width: 5;
  fill: none } .end { fill: var(--wrong); stroke: var(--paper); stroke-width: 1.5 }
.s0 { --c: var(--c0) } .s1 { --c: var(--c1) } .s2 { --c: var(--c2) }
.s3 { --c: var(--c3) } .s4 { --c: var(--c4) } .s5 { --c: var(--c5) }
.s6 { --c: var(--c6) } .plain { --c: var(--soft) }
.v1 { fill-opacity: .12 } .v2 { fill-opacity: .28 } .v3 { fill-opacity: .42 }
.v4 { fill-opacity: .58 } .v5 { fill-opacity: .78 } .v6 { fill-opacity: 1 }
.h0 { fill-opacity: .03 } .h1 { fill-opacity: .13 } .h2 { fill-opacity: .25 }
.h3 { fill-opacity: .37 } .h4 { fill-opacity: .49 } .h5 { fill-opacity: .61 }
.h6 { fill-opacity: .73 } .h7 { fill-opacity: .86 } .h8 { fill-opacity: 1 }
@media (min-width: 52rem) { .wide { grid-column: span 2 } }
@media print { nav { display: none } h2, figure { break-inside: avoid } }
"""
