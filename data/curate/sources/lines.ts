// Tables that are text, read by lines: CSV, TSV and JSON lines. Every value stays the text that it is, and a line that cannot be
// read is told by its number and costs no other. What the columns mean is table.ts.

import { fileLines } from "../../regular_file.ts";

/** A row, or what is wrong with it. */
export interface Line {
  /** From 1; of a row of many lines, its first. */
  readonly number: number;
  readonly row: Readonly<Record<string, unknown>> | Error;
}

export interface Lines {
  /** Names of the columns, in order. */
  readonly known: readonly string[];
  readonly each: AsyncIterable<Line>;
}

/** Lines that a quoted cell may span: where its quote is never closed, the lines after it are rows again. */
const QUOTED_LINES = 1000;

/** A table of cells; without `header`, columns are called by their numbers. Cells that are missing at the end of a row are empty. */
export async function delimitedLines(path: string, delimiter: "," | "\t", header: boolean): Promise<Lines> {
  let first: string[] = [];
  for await (const { cells } of records(path, delimiter)) {
    if (cells instanceof Error) throw new Error(`the first line: ${cells.message}`);
    first = cells;
    break;
  }
  const known = header ? first : first.map((_, i) => String(i));
  const row = (cells: readonly string[] | Error): Line["row"] => {
    if (cells instanceof Error) return cells;
    if (cells.length > known.length) return new Error(`${cells.length} cells where the first line has ${known.length}`);
    return Object.fromEntries(known.map((column, i) => [column, cells[i]]));
  };
  async function* each(): AsyncGenerator<Line> {
    let skip = header;
    for await (const { number, cells } of records(path, delimiter)) {
      if (!skip) yield { number, row: row(cells) };
      skip = false;
    }
  }
  return { known, each: each() };
}

/** A JSON object on each line. */
export function jsonLines(path: string): Promise<Lines> {
  return jsonObjects(() => lines(path));
}

/** Texts that are JSON objects, not all of the same fields; read twice. */
export async function jsonObjects(texts: () => AsyncIterable<Text>): Promise<Lines> {
  async function* each(): AsyncGenerator<Line> {
    for await (const { number, text } of texts()) yield { number, row: object(text) };
  }
  const known = new Set<string>();
  for await (const { row } of each()) {
    if (!(row instanceof Error)) for (const field of Object.keys(row)) known.add(field);
  }
  return { known: [...known], each: each() };
}

function object(text: string): Line["row"] {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
    return new Error("not a JSON object");
  } catch (error) {
    return new Error(`not JSON: ${(error as Error).message}`);
  }
}

/** What is to be a row. */
export interface Text {
  /** From 1. */
  readonly number: number;
  readonly text: string;
}

/** Lines that are not empty. */
async function* lines(path: string): AsyncGenerator<Text> {
  let number = 0;
  for await (const text of fileLines(path)) {
    number++;
    if (text.trim() !== "") yield { number, text };
  }
}

interface Cells {
  readonly number: number;
  readonly cells: string[] | Error;
}

/** Rows of a text with delimiters, RFC 4180's where that is a comma; tables with tabs have no quotes. */
async function* records(path: string, delimiter: "," | "\t"): AsyncGenerator<Cells> {
  let held: Text[] = []; // lines of a row whose quote is still open
  function* settle(end: boolean): Generator<Cells> {
    if (held.length === 0) return;
    const text = held.map((line) => line.text).join("\n");
    const cells = delimiter === "\t" ? text.split(delimiter) : quoted(text);
    if (cells === null && !end && held.length < QUOTED_LINES) return;
    const [{ number }, ...rest] = held;
    held = [];
    yield { number, cells: cells ?? new Error("a quote that is never closed") };
    if (cells !== null) return;
    for (const line of rest) {
      held.push(line);
      yield* settle(false);
    }
    if (end) yield* settle(true);
  }
  for await (const line of lines(path)) {
    held.push(line);
    const within = held.length > 1 && held.length < QUOTED_LINES && !line.text.includes('"');
    if (!within) yield* settle(false);
  }
  yield* settle(true);
}

/** Cells between commas; null where a quote is open at the end. */
function quoted(text: string): string[] | null {
  const cells: string[] = [];
  for (let at = 0; ; ) {
    let cell = "";
    if (text[at] === '"') {
      for (let more = true; more; ) {
        const end = text.indexOf('"', at + 1);
        if (end < 0) return null;
        more = text[end + 1] === '"'; // two stand for one
        cell += text.slice(at + 1, more ? end + 1 : end);
        at = end + 1;
      }
    }
    const end = text.indexOf(",", at);
    cells.push(cell + text.slice(at, end < 0 ? undefined : end));
    if (end < 0) return cells;
    at = end + 1;
  }
}
