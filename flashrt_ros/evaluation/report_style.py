"""The report's style sheet: system fonts, one column on a phone, light and dark."""

STYLE = """
:root { color-scheme: light dark; --bg:#f6f7f9; --card:#fff; --ink:#1b2430; --soft:#5d6a7a; --line:#dfe4ea;
  --accent:#2f6fde;
  --good:#17864a; --bad:#c43a2e; --s0:#2f6fde; --s1:#17864a; --s2:#c9700a; }
@media (prefers-color-scheme: dark) { :root { --bg:#12161c; --card:#1b212a; --ink:#e8ecf1; --soft:#98a5b5;
  --line:#2d3642;
  --accent:#6ea2ff; --good:#4ac878; --bad:#ff7b6b; --s0:#6ea2ff; --s1:#4ac878; --s2:#ffb057; } }
* { box-sizing:border-box }
body { margin:0; background:var(--bg); color:var(--ink); font:15px/1.5 system-ui,-apple-system,"Segoe
  UI",Roboto,sans-serif;
  font-variant-numeric:tabular-nums; }
main { max-width:1120px; margin:0 auto; padding:28px 20px 48px }
h1 { font-size:26px; line-height:1.2; margin:0 0 4px; letter-spacing:-.01em }
h2 { font-size:16px; margin:0 0 10px }
p { margin:0 0 8px } .soft { color:var(--soft) } small,.small { font-size:13px }
.grid { display:grid; gap:14px; grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr)); margin-top:14px }
.stack { display:grid; gap:14px; align-content:start; min-width:0 } .grid.wide { grid-template-columns:1fr }
.cards { display:grid; gap:14px; grid-template-columns:repeat(auto-fit,minmax(190px,1fr)); margin-top:20px }
.card { background:var(--card); border:1px solid var(--line); border-radius:10px; padding:16px 18px; min-width:0 }
.card b.big { display:block; font-size:30px; line-height:1.15; letter-spacing:-.02em; font-weight:650 }
.card .name { color:var(--soft); font-size:13px; margin-bottom:4px }
.strip { display:grid; gap:12px; grid-template-columns:repeat(auto-fill,minmax(min(46%,200px),1fr)) }
.ep { border:1px solid var(--line); border-radius:8px; overflow:hidden; background:var(--card) }
.ep .pics { display:grid; grid-template-columns:1fr 1fr; gap:1px; background:var(--line) }
.ep img { display:block; width:100%; height:auto } .ep div.words { padding:7px 10px 8px; font-size:13px;
  line-height:1.35 }
.tag { font-weight:650; white-space:nowrap } .ok { color:var(--good) } .no { color:var(--bad) }
table { border-collapse:collapse; width:100%; font-size:14px } .scroll { overflow-x:auto }
th,td { text-align:left; padding:6px 10px 6px 0; border-bottom:1px solid var(--line); vertical-align:top }
th { color:var(--soft); font-weight:500 } td.n { text-align:right; white-space:nowrap } tr:last-child td {
  border-bottom:0 }
code,pre { font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace } pre { margin:0; white-space:pre-wrap;
  overflow-wrap:anywhere }
.film { display:block; width:100%; max-width:420px; margin:0 auto; border-radius:8px }
svg { display:block; width:100%; height:auto; overflow:hidden }
svg .t { font-size:13px; fill:var(--soft) } svg .strong { fill:var(--ink); font-weight:600 }
svg .axis,svg .grid { stroke:var(--line); stroke-width:1 } svg .bar { fill:var(--accent) } svg .good {
  fill:var(--good) }
svg .track { fill:var(--line) } svg .mark { stroke:var(--ink); stroke-width:1; stroke-dasharray:3 3 }
svg .seam { stroke:var(--soft); stroke-width:1; stroke-dasharray:2 3; opacity:.55 }
svg .line { fill:none; stroke-width:2; stroke-linejoin:round }
svg .s0 { stroke:var(--s0) } svg .s1 { stroke:var(--s1) } svg .s2 { stroke:var(--s2) }
svg .f0 { fill:var(--s0) } svg .f1 { fill:var(--s1) } svg .f2 { fill:var(--s2) }
"""
