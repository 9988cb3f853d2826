// The page of a benchmark: what it says of a made-up result, that no words of it become markup, that its size is bounded; and in
// Chromium that nothing is wider than a phone, that no script but its own runs, and that its stickers play and pause.

import { describe, expect, test } from "vitest";
import { encodeGif } from "../data/encode/gif.ts";
import { renderPlot } from "../data/plot.ts";
import { MOST_BYTES, MOST_CAPTIONS } from "../eval/benchmark/gallery.ts";
import { renderBenchmarkReport } from "../eval/benchmark/report.ts";
import { HOSTILE, madeUpResult } from "./benchmark_result.ts";
import { hasChromium, openPage } from "./browser/chromium.ts";
import { discFrames } from "./stickers.ts";

/** A sticker for each path; every other system's is of another colour. */
const load = async (path: string): Promise<Uint8Array> =>
  encodeGif(discFrames([(path.length * 7) % 256, 120, 60], path.length), 40, 40);

/** Without attributes: what stands where. */
const bare = (html: string): string => html.replace(/<(\w+)[^>]*>/g, "<$1>");
const rowsOf = (html: string, from: string): string[] => {
  const at = html.indexOf(from);
  return html.slice(at, html.indexOf("</table>", at)).split("<tr").slice(1);
};

describe("the page", () => {
  test("has the paper's tables, best and second best marked, intervals, failures and what real stickers score", async () => {
    const page = await renderBenchmarkReport(madeUpResult(), load);
    const rows = rowsOf(page, "Table 4").map(bare);
    expect(rows).toHaveLength(2 + 6 + 1);
    const [ours, before] = [rows[7], rows[6]];
    expect(ours).toContain(
      "<th>Ours (STI)</th><td><strong>0.400</strong><span> best</span><small>[0.320, 0.500]</small><small>paper: 1 of 6</small></td>",
    );
    expect(before).toContain("<td><u>0.380</u><span> second best</span>");
    expect(rows[4]).toContain("<td><span>failed</span></td>");
    expect(rows[2]).toContain("VideoGPT is told tags, not captions");
    expect(rows[8]).toContain(
      "<th>Real stickers</th><td>0.600<small>n 24</small></td><td>0.900<small>n 12</small></td>",
    );
    expect(page.match(/<li>VideoLDM, VSD-C: the loss is NaN/g)).toHaveLength(1);
    expect(rowsOf(page, "Table 7").map(bare)[6]).toContain("<td><span>not done</span></td>");
    expect(page).toContain("This benchmark is not complete");
    for (const heading of ["Figure 6", "What one sticker takes", "How it was measured", "Trainings", "What failed"])
      expect(page).toContain(heading);
  });

  test("escapes every word that comes from outside, and lets its own script run alone", async () => {
    const result = madeUpResult();
    const page = await renderBenchmarkReport(result, load);
    expect(page).not.toContain("</table><script>");
    expect(page.match(/<script/g)).toHaveLength(1);
    expect(page).not.toMatch(/<img src=x/);
    expect(page.match(/alt="[^"]*"/g)?.every((alt) => !/[<>]/.test(alt))).toBe(true);
    expect(page).toContain("&lt;script&gt;");
    expect(page).toMatch(/script-src 'sha256-[\w+/=]+'"/);
    expect(JSON.stringify(result).split("<script>").length).toBeGreaterThan(8); // title, adapter, captions, reasons, ...
    expect(HOSTILE).toContain("<script>");
  });

  test("loads nothing from elsewhere, and says of each picture what it shows", async () => {
    const page = await renderBenchmarkReport(madeUpResult(), load);
    expect(page.match(/(?:src|href)="(?!data:image\/gif;base64,)[^"]*"/g)).toBeNull();
    expect(page).not.toMatch(/https?:|url\(|@import/);
    const images = page.match(/<img [^>]*>/g) ?? [];
    expect(images).toHaveLength(2 * 2 * 4 * 6); // test sets, sets trained on, captions, a reference and five systems
    expect(images.every((image) => /^<img alt="[^"]+: a /.test(image))).toBe(true);
    expect(page).toContain('<th scope="row" role="rowheader">a sticker of something');
  });

  test("is bounded in captions and in bytes, says so, and shows what is missing as missing", async () => {
    const many = await renderBenchmarkReport(madeUpResult({ captions: 30 }), load);
    expect(many.match(/role="rowheader"/g)).toHaveLength(4 * MOST_CAPTIONS);
    expect(many).toContain(`${30 - MOST_CAPTIONS} more captions are not shown here`);
    const large = Buffer.concat([Buffer.from(await load("x")), Buffer.alloc(MOST_BYTES / 20)]);
    const heavy = await renderBenchmarkReport(madeUpResult({ captions: 30 }), async () => large);
    expect(heavy.length).toBeLessThan(1.5 * (MOST_BYTES + 7 * large.length));
    expect(heavy.match(/role="rowheader"/g)?.length).toBe(4);
    const none = await renderBenchmarkReport(madeUpResult(), () => Promise.reject(new Error("no such file")));
    expect(none).not.toContain("<img ");
    expect(none.match(/<td role="cell"><span class="soft">none/g)).toHaveLength(2 * 2 * 4 * 7);
  });
});

describe("plots", () => {
  const line = (name: string, ...ys: number[]) => ({
    name,
    points: ys.map((y, i) => ({ x: i, y, low: y - 1, high: y + 1 })),
  });
  const at = (svg: string, what: RegExp): number[][] =>
    Array.from(svg.matchAll(what), ([, points]) => points.split(" ").map((p) => Number(p.split(",")[1])));

  test("draw what is larger higher up, bands around their lines, and name each line", () => {
    const svg = renderPlot({ title: "a < b", unit: "steps", lines: [line("one", 1, 5, 3), line("two", 2, 2, 2)] });
    const [[a, b, c], [d]] = at(svg, /<polyline[^>]* points="([^"]*)"/g);
    expect([b < c, c < a, b < d, d < a]).toEqual([true, true, true, true]);
    const [band] = at(svg, /<polygon class="band l0" points="([^"]*)"/g);
    expect(band).toHaveLength(6);
    expect([band[0] < a, band[5] > a]).toEqual([true, true]);
    expect(svg).toContain("a &lt; b");
    expect(svg.match(/<li>/g)).toHaveLength(2);
  });
  test("on a logarithmic axis leave out what has no logarithm, and take equal ratios for equal distances", () => {
    const points = [1, 10, 100, 0, Number.NaN].map((y, x) => ({ x, y }));
    const svg = renderPlot({ title: "t", unit: "u", lines: [{ name: "loss", points }], log: true });
    const [[a, b, c, ...rest]] = at(svg, /<polyline[^>]* points="([^"]*)"/g);
    expect(rest).toEqual([]);
    expect(a - b).toBeCloseTo(b - c, 6);
    expect(a).toBeGreaterThan(b);
  });
  test("name a line that is alone, and write as many digits as tell the ticks apart", () => {
    const points = [0.5541, 0.5544, 0.5549].map((y, x) => ({ x, y }));
    const svg = renderPlot({ title: "t", unit: "u", lines: [{ name: "Ours (STI)", points }] });
    expect(svg).toMatch(/<li>.*Ours \(STI\)<\/li>/);
    const ticks = Array.from(svg.matchAll(/text-anchor="end">([\d.]+)</g), ([, text]) => text);
    expect(ticks).toEqual(["0.5542", "0.5544", "0.5546", "0.5548"]);
    const whole = renderPlot({ title: "t", unit: "u", lines: [line("one", 1, 5, 3)] });
    expect(whole).toContain('text-anchor="end">2<');
  });
  test("of one value, and of none, can be drawn", () => {
    expect(renderPlot({ title: "t", unit: "u", lines: [line("one", 0)] })).not.toContain("NaN");
    expect(renderPlot({ title: "t", unit: "u", lines: [{ name: "one", points: [] }] })).toContain(
      "nothing to show yet",
    );
  });
});

test.skipIf(!hasChromium)(
  "in Chromium: fits a phone, runs no foreign script, plays all stickers at once and pauses them",
  async () => {
    const page = await renderBenchmarkReport(madeUpResult({ captions: 2 }), load);
    const browser = await openPage(new Map([["/", page]]));
    try {
      const { page: tab } = browser;
      const faults: string[] = [];
      // As texts: the types of a browser are no part of this project's.
      const images = (from: string): Promise<unknown> =>
        tab.waitForFunction(`[...document.images].every((i) => i.src.startsWith("${from}") && i.complete)`);
      const facts = async () =>
        (await tab.evaluate(
          "({ title: document.title, wide: document.documentElement.scrollWidth - innerWidth, widths: [...document.images].map((i) => i.naturalWidth) })",
        )) as { title: string; wide: number; widths: number[] };
      tab.on("console", (message) => message.type() === "error" && faults.push(message.text()));
      tab.on("pageerror", (error) => faults.push(error.message));
      await tab.setViewportSize({ width: 390, height: 800 });
      await tab.reload({ waitUntil: "load" });
      await images("blob:");
      const { title, wide, widths } = await facts();
      expect(title).toContain("A benchmark </td>");
      expect(wide).toBeLessThanOrEqual(0);
      expect(new Set(widths)).toEqual(new Set([40]));
      await tab.click(".controls button");
      await images("data:image/png");
      await tab.emulateMedia({ reducedMotion: "reduce" });
      await tab.reload({ waitUntil: "load" });
      await images("data:image/png");
      await tab.setViewportSize({ width: 1200, height: 900 });
      expect((await facts()).wide).toBeLessThanOrEqual(0);
      expect(faults).toEqual([]);
    } finally {
      await browser.close();
    }
  },
);
