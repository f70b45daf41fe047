//! The page's own style sheet. Colours keep a contrast of at least 4.5:1 for text in both schemes.

pub(super) const CSS: &str = r#"
:root{color-scheme:light dark;--bg:#faf9f7;--card:#fff;--ink:#1c1b19;--soft:#5f5b54;--line:#e4e0d9;--grid:#ece9e3;
--good:#11704a;--good-bg:#e7f4ed;--bad:#b3261e;--bad-bg:#fcebe9;--warn:#8a5300;--warn-bg:#fdf2dc;
--offered:#a39c8f;--ok:#1d7f8c;--ok-fill:#1d7f8c26;--p50:#2a62c4;--p99:#8637b8;--max:#b9651b;--fail:#c8362c;--band:#d9a40026;--band-edge:#b98900;--label:#6b4f00}
@media(prefers-color-scheme:dark){:root{--bg:#151413;--card:#1e1d1b;--ink:#ece9e4;--soft:#a9a398;--line:#35322e;--grid:#2b2926;
--good:#6fd3a2;--good-bg:#15301f;--bad:#ff9a90;--bad-bg:#3b1a17;--warn:#f3c26b;--warn-bg:#352810;
--offered:#7d766b;--ok:#4fc3d1;--ok-fill:#4fc3d126;--p50:#82aefc;--p99:#cf94f2;--max:#eba55f;--fail:#ff7a6e;--band:#f0c04022;--band-edge:#caa23c;--label:#f0d48a}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1080px;margin:0 auto;padding:32px 20px 48px}
header p{margin:0;color:var(--soft)}
h1{font-size:1.05rem;font-weight:600;margin:0 0 2px;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:36px 0 10px;letter-spacing:-.005em}
.verdict{margin:18px 0 0;padding:22px 24px;border-radius:14px;border:1px solid var(--edge);background:var(--tint)}
.verdict strong{display:block;font-size:clamp(1.7rem,5vw,2.5rem);line-height:1.1;letter-spacing:-.02em;color:var(--edge)}
.verdict p{margin:8px 0 0;font-size:1.06rem;overflow-wrap:anywhere}
.held{--edge:var(--good);--tint:var(--good-bg)}.broke{--edge:var(--bad);--tint:var(--bad-bg)}.unsure{--edge:var(--warn);--tint:var(--warn-bg)}
ul.claims{list-style:none;margin:14px 0 0;padding:0;display:grid;gap:5px}
ul.claims li{padding-left:1.6em;text-indent:-1.6em;overflow-wrap:anywhere}
ul.claims .m{display:inline-block;width:1.6em;text-indent:0;font-weight:700}
.m.y{color:var(--good)}.m.n{color:var(--bad)}
ul.claims li.head{padding:8px 0 0;text-indent:0;font-weight:600}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;overflow:hidden}
.scroll{overflow-x:auto}
.scroll:focus-visible{outline:2px solid var(--p50);outline-offset:2px}
.chart svg{display:block;min-width:760px;width:100%;height:auto}
table{border-collapse:collapse;width:100%;font-size:.93rem}
th,td{text-align:left;padding:9px 12px;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td,tr:last-child th{border-bottom:0}
thead th{color:var(--soft);font-weight:600;font-size:.82rem}
td.n,th.n{text-align:right;white-space:nowrap}
td small{display:block;color:var(--soft);overflow-wrap:anywhere}
td{overflow-wrap:anywhere}td.f{white-space:nowrap}
ol.reasons{margin:0;padding:14px 18px 14px 40px}ol.reasons li{margin:6px 0;overflow-wrap:anywhere}
.tag{display:inline-block;font-size:.78rem;font-weight:600;padding:1px 8px;border-radius:99px;background:var(--bad-bg);color:var(--bad);margin-right:6px}
.tag.warn{background:var(--warn-bg);color:var(--warn)}
ul.plain{margin:0;padding:0 0 0 20px;color:var(--soft)}ul.plain li{margin:4px 0;overflow-wrap:anywhere}
code{font:.92em ui-monospace,"SF Mono",Menlo,Consolas,monospace}
pre{margin:8px 0 0;padding:12px 14px;background:var(--card);border:1px solid var(--line);border-radius:10px;overflow-x:auto}
details{margin-top:12px}summary{cursor:pointer;color:var(--soft)}
details .scroll{max-height:420px;overflow:auto;margin-top:8px}
footer{margin-top:36px;color:var(--soft);font-size:.92rem;overflow-wrap:anywhere}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;fill:var(--soft);font-variant-numeric:tabular-nums}
svg .t{fill:var(--ink);font-weight:600;font-size:13px}svg .b{fill:var(--label);font-weight:600}svg .t,svg .b{paint-order:stroke;stroke:var(--card);stroke-width:5px;stroke-linejoin:round}
svg .grid{stroke:var(--grid)}svg .axis{stroke:var(--line)}
svg .band{fill:var(--band)}svg .edge{stroke:var(--band-edge);stroke-width:1.5}
svg .offered{fill:none;stroke:var(--offered);stroke-width:1.5;stroke-dasharray:4 3}
svg .okl{fill:none;stroke:var(--ok);stroke-width:2}svg .okf{fill:var(--ok-fill)}
svg .p50{fill:none;stroke:var(--p50);stroke-width:2}svg .p99{fill:none;stroke:var(--p99);stroke-width:2}svg .max{fill:none;stroke:var(--max);stroke-width:1.3;stroke-dasharray:2 2}
svg .slow{stroke:var(--fail);stroke-dasharray:6 4}svg .fail{fill:var(--fail)}svg .drop{fill:var(--offered)}
svg .k{font-size:12px}svg .hit{fill:transparent}svg .hit:hover{fill:var(--band)}
@media(max-width:680px){main{padding:20px 14px 36px}.verdict{padding:18px}
table.stack,table.stack tbody,table.stack tr,table.stack td{display:block;width:100%}table.stack thead{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}
table.stack tr{padding:10px 14px;border-bottom:1px solid var(--line)}table.stack tr:last-child{border-bottom:0}
table.stack td{border:0;padding:3px 0;display:grid;grid-template-columns:8.2em 1fr;gap:10px;text-align:left;white-space:normal}
table.stack td::before{content:attr(data-label);color:var(--soft);font-size:.86rem}}
@media print{body{background:#fff}.card,.verdict{break-inside:avoid}}
"#;
