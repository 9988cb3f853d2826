// What pages of ours share: escaping, the frame of a page with its colours for light and dark, stickers as data URLs. Line plots
// are plot.ts; what stands on a page is the business of the reports (train/report.ts, eval/benchmark/report.ts).

import { createHash } from "node:crypto";
import { stickerFormat } from "./decode/index.ts";

/** Text as it may stand between tags and in quoted attributes, of HTML and of SVG. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c] as string);
}

export interface Page {
  readonly title: string;
  /** HTML, its texts escaped. */
  readonly body: string;
  /** Rules beside the common ones. */
  readonly style?: string;
  /** The only script that the page runs. */
  readonly script?: string;
}

const STYLE = `  :root { color-scheme: light dark; --ink: #222; --paper: #fff; --soft: #5f6368; --line: #d4d7dc; --mark: #a3262a; --accent: #1d4ed8; }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #e7e8ea; --paper: #17181b; --soft: #a3a8b0; --line: #3c4047; --mark: #ff8f8f; --accent: #8fb4ff; }
  }
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }
  h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; } h3 { font-size: 1rem; } a { color: var(--accent); }
  table { border-collapse: collapse; } th { text-align: left; } .soft, .note, figcaption { color: var(--soft); }
  .facts th { font-weight: normal; color: var(--soft); overflow-wrap: normal; } .facts td, .facts th { padding: 0.15rem 1rem 0.15rem 0; vertical-align: top; }
  figure { margin: 0; } img { image-rendering: pixelated; background: #fff; border: 1px solid var(--line); border-radius: 8px; }
  .plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1.5rem; }`;

/**
 * A whole page in one file. Its policy lets it load nothing from elsewhere and run no script but its own, so that words which
 * escaping has missed stay words.
 */
export function renderPage({ title, body, style = "", script }: Page): string {
  const scripts = script ? `'sha256-${createHash("sha256").update(script).digest("base64")}'` : "'none'";
  const policy = `default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src ${scripts}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>
${[STYLE, style].filter(Boolean).join("\n")}
</style>
</head>
<body>
<h1>${escapeHtml(title)}</h1>
${body}
${script ? `<script>${script}</script>\n` : ""}</body>
</html>
`;
}

/** Rows of two columns: what something is called, and what it is. */
export function factsTable(facts: readonly (readonly [label: string, value: string])[]): string {
  const rows = facts.map(([k, v]) => `<tr><th scope="row">${escapeHtml(k)}</th><td>${escapeHtml(v)}</td></tr>`);
  return `<table class="facts">${rows.join("")}</table>`;
}

const TYPES = {
  gif: "image/gif",
  apng: "image/png",
  png: "image/png",
  jpeg: "image/jpeg",
  webp: "image/webp",
} as const;

/** A sticker's bytes as what an image's `src` takes. Throws Error where they are no sticker. */
export function imageUrl(bytes: Uint8Array): string {
  return `data:${TYPES[stickerFormat(bytes)]};base64,${Buffer.from(bytes).toString("base64")}`;
}
