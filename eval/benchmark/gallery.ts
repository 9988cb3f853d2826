// The playing stickers of a benchmark's page: captions by systems, the reference first. They start together, can be paused, and on
// a narrow screen stand below each other. How many are shown is bounded, so that the page can be mailed. Called by report.ts.

import { escapeHtml, imageUrl } from "../../data/html.ts";
import type { BenchmarkResult, GalleryRow } from "./result.ts";

/** Reads a file by its path in the result. */
export type LoadFile = (path: string) => Promise<Uint8Array>;

/** Captions of one gallery, and bytes of all stickers of the page; what is beyond is left out, and said. */
export const MOST_CAPTIONS = 12;
export const MOST_BYTES = 24e6;

export const GALLERY_STYLE = `  .gallery { width: 100%; table-layout: fixed; font-size: 0.85rem; } .gallery th, .gallery td { padding: 0.3rem; vertical-align: top; text-align: left; }
  .gallery tbody tr { border-top: 1px solid var(--line); } .gallery img { display: block; width: 100%; max-width: 8rem; aspect-ratio: 1; } .gallery th[scope="row"] { font-weight: normal; }
  .gallery .name { display: none; } .gallery button, .controls button { font: inherit; padding: 0.3rem 0.9rem; }
  @media (max-width: 48rem) {
    .gallery, .gallery tbody { display: block; } .gallery thead { display: none; }
    .gallery tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(5.5rem, 1fr)); gap: 0.5rem; padding: 0.7rem 0; }
    .gallery th[scope="row"] { grid-column: 1 / -1; font-weight: 600; padding: 0; } .gallery td { padding: 0; } .gallery .name { display: block; color: var(--soft); }
  }`;

/**
 * Starts all stickers anew at the same moment, each from an address of its own, since browsers let images of one address share
 * their time. Paused ones show their first frame. Without scripts they play as they were loaded. Begins paused for readers who have asked
 * for less motion.
 */
export const GALLERY_SCRIPT = `
(() => {
  const button = document.querySelector(".controls button");
  if (!button) return;
  const images = [...document.querySelectorAll(".gallery img")];
  const blobs = images.map((image) => {
    const [head, body] = image.src.split(",");
    return new Blob([Uint8Array.from(atob(body), (c) => c.charCodeAt(0))], { type: head.slice(5).split(";")[0] });
  });
  let urls = [];
  const show = (next) => {
    images.forEach((image, i) => { image.src = next[i]; });
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = next;
  };
  const play = () => show(blobs.map((blob) => URL.createObjectURL(blob)));
  const pause = () => show(images.map((image) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth || 1, image.naturalHeight || 1];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL();
  }));
  let playing = true;
  const set = (next) => {
    playing = next;
    (playing ? play : pause)();
    button.textContent = playing ? "Pause the stickers" : "Play the stickers, all from their first frame";
  };
  button.hidden = false;
  button.addEventListener("click", () => set(!playing));
  addEventListener("load", () => set(!matchMedia("(prefers-reduced-motion: reduce)").matches));
})();
`;

/** A gallery for each test set and set that was trained on. */
export async function renderGallery(result: BenchmarkResult, load: LoadFile): Promise<string> {
  const { gallery, systems } = result;
  if (gallery.length === 0) return "";
  const shown = new Budget(load);
  const parts: string[] = [];
  const tests = [...new Set(gallery.map(({ test }) => test))];
  for (const test of tests) {
    const rows = gallery.filter((row) => row.test === test);
    for (const set of new Set(rows.flatMap(({ stickers }) => stickers.map((sticker) => sticker.set)))) {
      const columns = systems.filter(({ name }) => rows.some((row) => gifOf(row, name, set) !== undefined));
      const lines: string[] = [];
      for (const row of rows.slice(0, MOST_CAPTIONS)) {
        if (shown.full) break;
        const cells = [await cell("Reference", row.reference, row.caption, shown)];
        for (const { name, title } of columns)
          cells.push(await cell(title, gifOf(row, name, set) ?? null, row.caption, shown));
        lines.push(
          `<tr role="row"><th scope="row" role="rowheader">${escapeHtml(row.caption)}</th>${cells.join("")}</tr>`,
        );
      }
      const left = rows.length - lines.length;
      const more =
        left > 0
          ? `<p class="soft">${left} more captions are not shown here, to keep the page small; the files are in the folders of the samples.</p>`
          : "";
      const id = `gallery-${parts.length}`;
      parts.push(`<h3 id="${id}">${escapeHtml(`${test}, trained on ${set}`)}</h3>
<table class="gallery" role="table" aria-labelledby="${id}"><thead><tr role="row"><th scope="col" role="columnheader">Caption</th>${[
        "Reference",
        ...columns.map(({ title }) => title),
      ]
        .map((title) => `<th scope="col" role="columnheader">${escapeHtml(title)}</th>`)
        .join("")}</tr></thead>
<tbody>${lines.join("\n")}</tbody></table>${more}`);
    }
  }
  return `<h2>Stickers</h2>
<p class="controls"><button type="button" hidden>Pause the stickers</button></p>
${parts.join("\n")}`;
}

/** Undefined: the row has no such sticker. Null: it has none to show. */
function gifOf({ stickers }: GalleryRow, system: string, set: string): string | null | undefined {
  return stickers.find((sticker) => sticker.system === system && sticker.set === set)?.gif;
}

async function cell(title: string, path: string | null, caption: string, shown: Budget): Promise<string> {
  const url = path === null ? null : await shown.take(path);
  const image =
    url === null ? '<span class="soft">none</span>' : `<img alt="${escapeHtml(`${title}: ${caption}`)}" src="${url}">`;
  return `<td role="cell">${image}<span class="name" aria-hidden="true">${escapeHtml(title)}</span></td>`;
}

/** Files as data URLs, as long as there is room. */
class Budget {
  readonly #load: LoadFile;
  #left = MOST_BYTES;

  constructor(load: LoadFile) {
    this.#load = load;
  }

  get full(): boolean {
    return this.#left <= 0;
  }

  /** Null where the file is not there, or is no sticker. */
  async take(path: string): Promise<string | null> {
    try {
      const bytes = await this.#load(path);
      this.#left -= bytes.length;
      return imageUrl(bytes);
    } catch {
      return null;
    }
  }
}
