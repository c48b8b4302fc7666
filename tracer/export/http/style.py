"""How the landing page looks, and what a browser lets it do."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--fg:#1b1f24;--dim:#57606a;--bg:#fff;--box:#f6f8fa;--line:#d0d7de;--bad:#b42318;
--near:#9a5b00;--good:#1a7f37;--h1:#e3eefb;--h2:#b6d3f5;--h3:#7fb0e8;--h4:#4387d3;--h5:#1f5fae;--h6:#0b3d7d}
@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--dim:#9aa4af;--bg:#0d1117;--box:#161b22;--line:#30363d;
--bad:#ff7b72;--near:#e3b341;--good:#56d364;
--h1:#10233c;--h2:#133a66;--h3:#1b5795;--h4:#2f7dcb;--h5:#6aa9ec;--h6:#c3dffb}}
*{box-sizing:border-box}
body{font:14px/1.45 system-ui,sans-serif;color:var(--fg);background:var(--bg);
margin:1.5rem auto;max-width:76rem;padding:0 1rem;overflow-wrap:anywhere}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}p{margin:.3rem 0}
a{color:inherit}nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem}.dim{color:var(--dim)}
.bad{color:var(--bad)}.good{color:var(--good)}td.bad{font-weight:600}
.verdict{font-size:1.2rem;font-weight:600;margin:1rem 0 .2rem}
.card{color:var(--fg);background:var(--box);border:1px solid var(--line);border-left:4px solid var(--bad);
border-radius:6px;margin:.4rem 0;padding:.4rem .7rem}.near{border-left-color:var(--near)}
summary{display:grid;grid-template-columns:13rem 7rem minmax(0,1fr) auto auto;gap:0 1rem;cursor:pointer}
summary::-webkit-details-marker{display:none}summary::marker{content:""}
.what{grid-column:1;font-weight:600;color:var(--bad)}.near .what{color:var(--near)}
.what::before{content:"\\25B8\\00A0"}[open]>summary .what::before{content:"\\25BE\\00A0"}
.times{grid-column:2;font-weight:600}.where{grid-column:3}.who{grid-column:4}.when{grid-column:5;color:var(--dim)}
.more{grid-column:1/-1;color:var(--dim)}
pre,code{font:12.5px/1.5 ui-monospace,monospace;white-space:pre-wrap;margin:.5rem 0}
pre>span{display:block;padding-left:10ch;text-indent:-10ch}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.2rem .7rem .2rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--dim);white-space:nowrap}.n{text-align:right;white-space:nowrap}td{overflow-wrap:normal}td.text{min-width:7rem;overflow-wrap:anywhere}
.heat{display:grid;grid-template-columns:auto minmax(0,1fr);max-width:62rem;gap:2px 6px}
.heat svg{display:block}#heat-map{width:100%;border:1px solid var(--line)}
.minutes{grid-column:2;display:flex;justify-content:space-between;font-size:12px;color:var(--dim)}
svg text{font:12px system-ui,sans-serif;fill:var(--dim)}
.h1{fill:var(--h1)}.h2{fill:var(--h2)}.h3{fill:var(--h3)}.h4{fill:var(--h4)}.h5{fill:var(--h5)}.h6{fill:var(--h6)}
@media(max-width:60rem){summary{grid-template-columns:minmax(0,1fr) auto}
.what{grid-column:1}.times{grid-column:2;text-align:right}.where{grid-column:1/-1;font-weight:600}
.who{grid-column:1}.when{grid-column:2;text-align:right}
table,tbody,tr,td{display:block}thead{display:none}
tr{background:var(--box);border:1px solid var(--line);border-radius:6px;margin:.4rem 0;padding:.3rem .7rem}
td,td.n{display:grid;grid-template-columns:8rem minmax(0,1fr);gap:0 .5rem;border:0;padding:.05rem 0;text-align:left;
white-space:normal;overflow-wrap:anywhere}
td::before{content:attr(data-title);color:var(--dim);font-weight:400}td:empty{display:none}}
"""


def policy(style: str) -> str:
    """Return a content security policy that lets a page have this style sheet, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-{digest}'"


CONTENT_SECURITY_POLICY: Final = f"{policy(STYLE)}; frame-ancestors 'none'"
