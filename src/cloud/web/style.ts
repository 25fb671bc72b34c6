// The style sheet of our own pages: light and dark, from 400 px up, no fonts or pictures from elsewhere.
import type { Route } from "./route.ts";

const text = `:root {
  --ink: #1b2330; --muted: #566072; --ground: #f6f7f9; --card: #fff; --line: #d8dde5; --accent: #2557d6; --on-accent: #fff;
  --bad: #b3261e; --good: #1d7a46;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e8ebf0; --muted: #a3adbd; --ground: #12161d; --card: #1b212b; --line: #343d4b; --accent: #86a8ff; --on-accent: #10182c;
    --bad: #ff9d94; --good: #7fd6a4;
  }
}
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); }
header { padding: 1rem 1.25rem; }
.brand { color: inherit; font-weight: 650; text-decoration: none; letter-spacing: -0.01em; }
main { max-width: 30rem; margin: 4vh auto 3rem; padding: 1.75rem; background: var(--card); border: 1px solid var(--line); border-radius: 14px; }
@media (max-width: 34rem) { main { margin: 0.5rem; padding: 1.25rem; } }
main.wide { max-width: 60rem; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0 0 0.75rem; letter-spacing: -0.015em; }
h2 { font-size: 1.05rem; margin: 1.75rem 0 0.5rem; }
p { margin: 0.5rem 0; overflow-wrap: anywhere; }
.muted, small { color: var(--muted); }
.bad { color: var(--bad); }
.good { color: var(--good); }
a { color: var(--accent); }
label { display: block; font-weight: 550; margin: 0.9rem 0 0.25rem; }
input, select { width: 100%; font: inherit; color: inherit; background: transparent; border: 1px solid var(--line); border-radius: 8px; padding: 0.55rem 0.7rem; }
select option { color: initial; }
input[type="checkbox"] { width: auto; margin-right: 0.5rem; }
input.code { font: 1.5rem/1.2 ui-monospace, monospace; letter-spacing: 0.12em; text-transform: uppercase; text-align: center; }
button, .button { display: inline-block; font: inherit; font-weight: 600; cursor: pointer; border: 1px solid transparent; border-radius: 8px;
  padding: 0.55rem 1.1rem; background: var(--accent); color: var(--on-accent); text-decoration: none; }
button.quiet { background: transparent; color: var(--ink); border-color: var(--line); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.row { display: flex; flex-wrap: wrap; gap: 0.75rem; margin-top: 1.25rem; align-items: center; }
.notice { border-left: 4px solid var(--accent); padding: 0.5rem 0.9rem; margin: 1rem 0; background: var(--ground); border-radius: 0 8px 8px 0; }
.notice.bad { border-color: var(--bad); }
code { font: 0.9em ui-monospace, monospace; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; }
th, td { text-align: left; padding: 0.45rem 0.5rem 0.45rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.scroll { overflow-x: auto; }
`;

export const styleRoute: Route = {
  method: "GET",
  path: "/assets/style.css",
  access: "public",
  handle: (context) =>
    context.body(text, 200, { "content-type": "text/css; charset=utf-8", "cache-control": "public, max-age=3600" }),
};
