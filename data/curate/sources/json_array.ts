// A table that is one JSON array of objects, of any length: it is cut into its rows while it is read, and no more than a row is
// held. Called by table.ts.

import { createReadStream } from "node:fs";
import { jsonObjects, type Lines, type Text } from "./lines.ts";

/** Characters of a row. Where a quote is never closed, the rest of the file would be one. */
const LONGEST = 16 * 2 ** 20;

/** Rows are counted from 1. Throws Error where the file is no array, where a row is too long, or where something follows the array. */
export function jsonArray(path: string): Promise<Lines> {
  return jsonObjects(() => rows(path));
}

/** What stands between the brackets and commas of the outer array; and what a file that was cut off ends with. */
async function* rows(path: string): AsyncGenerator<Text> {
  let [depth, quoted, escaped, ended] = [0, false, false, false];
  let [number, text] = [1, ""]; // the row that is being read
  for await (const piece of createReadStream(path, { encoding: "utf8" }) as AsyncIterable<string>) {
    let start = 0;
    for (let at = 0; at < piece.length; at++) {
      const char = piece[at];
      if (quoted) {
        quoted = escaped || char !== '"';
        escaped = !escaped && char === "\\";
      } else if (depth === 0) {
        if (char.trim() === "") continue;
        if (ended) throw new Error("something follows the array");
        if (char !== "[") throw new Error("not a JSON array; a file with an object on each line is called .jsonl");
        [depth, start] = [1, at + 1];
      } else {
        if (char === '"') quoted = true;
        else if (char === "{" || char === "[") depth++;
        else if (char === "}" || char === "]") depth--;
        ended = depth === 0;
        if (!ended && (depth > 1 || char !== ",")) continue;
        text += piece.slice(start, at);
        if (!ended || number > 1 || text.trim() !== "") yield { number, text };
        [number, text, start] = [number + 1, "", at + 1];
      }
    }
    if (depth > 0) text += piece.slice(start);
    if (text.length > LONGEST) throw new Error(`row ${number} is longer than 16 MB, or a quote in it is never closed`);
  }
  if (!ended) yield { number, text };
}
