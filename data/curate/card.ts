// The data card: what a data set is, where it comes from and under which licences, in the form that Hugging Face shows (YAML
// header, then Markdown). Written beside every export.

import type { CurateConfig } from "./config.ts";
import type { Bar, TABLE_3 } from "./paper.ts";
import type { Stats } from "./stats.ts";

/** Lines of a list. */
const SHOWN = 20;

/** `files`: the lines of the header that say where the splits are (export/data_files.ts). */
export function dataCard(stats: Stats, { sources, filter }: CurateConfig, files: string): string {
  const languages = stats.facts.language.includes("Cn") ? ["en", "zh"] : ["en"];
  const percent = (name: keyof typeof TABLE_3): string => {
    const value = stats.table3[name];
    return value === null || value === undefined
      ? "unknown"
      : name.endsWith("ratio")
        ? `${(100 * value).toFixed(1)} %`
        : value.toFixed(1);
  };
  return `---
pretty_name: ${JSON.stringify(stats.name)}
language: [${languages.join(", ")}]
task_categories: [text-to-video, text-to-image]
tags: [stickers, gif]
size_categories: [${sizeCategory(stats.stickers)}]
${files}
---

# ${stats.name}

${stats.stickers} stickers with descriptions, made with Gifgrad's \`dataset build\`.

| | |
|---|---|
| animated | ${percent("multi_frame_ratio")} |
| with text on the picture | ${percent("optical_character_ratio")} |
| cartoon | ${percent("cartoon_ratio")} |
| frames, mean | ${percent("average_frames")} |
| trigger words, mean | ${percent("average_trigger_words")} |
| characters of a description, mean | ${percent("average_description_length")} |

## Splits

${lines(stats.splits)}

VSD-R and VSD-C are test sets: a sticker for each of the most frequent trigger words of its domain. Stickers that look like a
test sticker are in no split. \`held-out\` are pairs of subject and action that training does not show together.

## Sources, licences, attribution

${sources.map((source) => `- **${source.name}** (${source.type}): ${licence(source, stats)}${source.attribution ? `; ${source.attribution}` : ""}`).join("\n")}

Stickers by licence, their own where they state one, else that of their source (both are in a sticker's record, as \`license\` and
\`attribution\`):

${most(stats.licenses)}
${stats.attributions.length > 0 ? `\nStickers by whom they are attributed to:\n\n${most(stats.attributions)}\n` : ""}
## What was left out

${lines(Object.fromEntries(Object.entries(stats.filter).filter(([verdict]) => verdict !== "kept")))}
${stats.notCollected.length > 0 ? `\nEntries of the sources that could not be taken:\n\n${most(stats.notCollected)}\n` : ""}
Limits: at most ${filter.maxTextCharacters} characters of text or ${100 * filter.maxTextArea} % of the area under it, entropy of at least
${filter.minEntropy} bits, sides of at most ${filter.maxAspect} : 1, near duplicates up to ${filter.nearDuplicateBits} of 256 bits.
`;
}

function licence({ name, license }: CurateConfig["sources"][number], { sources }: Stats): string {
  if (license) return license;
  const { stickers, licensed } = sources[name] ?? { stickers: 0, licensed: 0 };
  if (licensed === 0) return "licence not stated";
  return licensed === stickers
    ? "each sticker states its licence"
    : `${licensed} of ${stickers} stickers state their licence, the others none`;
}

/** The first of a list sorted by count. */
function most(bars: readonly Bar[]): string {
  const shown = bars.slice(0, SHOWN);
  const more = bars.length > SHOWN ? ["- and others"] : [];
  // What sources say may hold line breaks, which would end the list.
  return [...shown.map(([name, n]) => `- ${name.replace(/\s+/g, " ")}: ${n}`), ...more].join("\n");
}

function lines(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .map(([name, n]) => `- ${name}: ${n}`)
    .join("\n");
}

/** Hugging Face's names. */
function sizeCategory(n: number): string {
  const bounds: readonly (readonly [number, string])[] = [
    [1e3, "n<1K"],
    [1e4, "1K<n<10K"],
    [1e5, "10K<n<100K"],
    [1e6, "100K<n<1M"],
    [1e7, "1M<n<10M"],
  ];
  return bounds.find(([bound]) => n < bound)?.[1] ?? "n>10M";
}
