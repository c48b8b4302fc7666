"""How the landing page looks, and what a browser lets it do."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--fg:#1b1f24;--dim:#57606a;--bg:#fff;--line:#d0d7de;--bad:#b42318;--good:#1a7f37;
--h1:#e3eefb;--h2:#b6d3f5;--h3:#7fb0e8;--h4:#4387d3;--h5:#1f5fae;--h6:#0b3d7d}
@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--dim:#9aa4af;--bg:#0d1117;--line:#30363d;--bad:#ff7b72;
--good:#56d364;--h1:#10233c;--h2:#133a66;--h3:#1b5795;--h4:#2f7dcb;--h5:#6aa9ec;--h6:#c3dffb}}
body{font:14px/1.45 system-ui,sans-serif;color:var(--fg);background:var(--bg);
margin:1.5rem auto;max-width:76rem;padding:0 1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}p{margin:.3rem 0}
a{color:inherit}nav a{margin-right:1rem}.dim{color:var(--dim)}td.bad,p.bad,span.bad{color:var(--bad);font-weight:600}
.good{color:var(--good)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .7rem .2rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--dim);white-space:nowrap}.n{text-align:right;white-space:nowrap}
td.when{white-space:nowrap}td.text{overflow-wrap:anywhere;min-width:7rem}svg{max-width:100%;height:auto;display:block}
svg text{font:11px system-ui,sans-serif;fill:var(--dim)}.h0{fill:none;stroke:var(--line);stroke-width:.3}
.h1{fill:var(--h1)}.h2{fill:var(--h2)}.h3{fill:var(--h3)}.h4{fill:var(--h4)}.h5{fill:var(--h5)}.h6{fill:var(--h6)}
"""

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'"
)
