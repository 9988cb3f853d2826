// Configurations, which people write in JSON: reading one, and what is wrong with it in words for who wrote it: the key, what it may
// be and what it is. What is in them is said by curate/config.ts and eval/benchmark/config.ts, which call this.

import { readFile } from "node:fs/promises";
import * as z from "zod";
import { unreadable } from "./regular_file.ts";

/** The value of a file of JSON; pipes are read too, as of `<(...)`. Throws one line when there is none. */
export async function readConfiguration(path: string): Promise<unknown> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    throw unreadable(`the configuration ${path}`, error);
  });
  return parseJson(text, path);
}

/** @throws Error in one line that begins with `where` */
export function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch (error) {
    throw new Error(`${where} is not JSON: ${(error as Error).message.replaceAll(/\s+/g, " ")}`);
  }
}

/** What `schema` makes of a value. Throws one line that begins with `where` and names every key that is wrong. */
export function checked<T>(schema: z.ZodType<T>, value: unknown, where: string): T {
  const parsed = schema.safeParse(value, { reportInput: true });
  if (parsed.success) return parsed.data;
  throw new Error(`${where}: ${parsed.error.issues.flatMap(meant).map(faultText).join("; ")}`);
}

/** What zod says of a union that has no words of its own. */
const UNWORDED = "Invalid input";

/** An object that takes these keys and refuses others, naming its own. */
export function section<Shape extends z.ZodRawShape>(shape: Shape) {
  return z.strictObject(shape, {
    error: ({ code }) => (code === "unrecognized_keys" ? `there are ${Object.keys(shape).join(", ")}` : undefined),
  });
}

const KINDS: Readonly<Record<string, string>> = {
  string: "a text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "an object",
  record: "an object",
};

type Issue = z.core.$ZodIssue;

/** Of a union's issues those of the one shape that was meant: the only one whose keys are known. Its own where there is none. */
function meant(issue: Issue): Issue[] {
  if (issue.code !== "invalid_union") return [issue];
  const [one, another] = issue.errors.filter(
    (branch) => !branch.some(({ code, path }) => code === "unrecognized_keys" && path.length === 0),
  );
  if (!one || another) return [issue];
  return one.flatMap((inner) => meant({ ...inner, path: [...issue.path, ...inner.path] }));
}

/** One fault in one line, e.g. `filter.maxAspect must be a number, not "wide"`. */
function faultText(issue: Issue): string {
  const at = issue.path.join(".");
  if (issue.code === "unrecognized_keys") {
    const names = issue.keys.map((key) => JSON.stringify([...issue.path, key].join("."))).join(", ");
    return `${names}: no such key; ${issue.message}`;
  }
  const subject = at === "" ? "the file" : at;
  const given = byType(issue) ? (issue.input as Record<PropertyKey, unknown>)[issue.path.at(-1) ?? ""] : issue.input;
  if (given === undefined) return `${subject} is missing${byType(issue) ? `: it ${demand(issue)}` : ""}`;
  return `${subject} ${demand(issue)}, not ${shown(given)}`;
}

/** Of a union whose members are told apart by one key: the fault is about that key, and what was given is the object. */
function byType(issue: Issue): boolean {
  return issue.code === "invalid_union" && issue.errors.length === 0;
}

/** "must be ...". */
function demand(issue: Issue): string {
  switch (issue.code) {
    case "invalid_type":
      return `must be ${KINDS[issue.expected] ?? issue.expected}`;
    case "invalid_value":
      return `must be ${either(issue.values.map((value) => JSON.stringify(value)))}`;
    case "too_small":
      if (issue.origin === "string") return "must not be empty";
      if (issue.origin === "array") return `must have at least ${issue.minimum}`;
      return issue.inclusive === false ? `must be above ${issue.minimum}` : `must be at least ${issue.minimum}`;
    case "too_big":
      return `must be at most ${issue.maximum}`;
    case "invalid_format":
      return issue.format === "includes"
        ? `must contain ${(issue as { includes?: string }).includes}`
        : "must be an address like http://localhost:11434/v1";
    case "not_multiple_of":
      return `must be a multiple of ${issue.divisor}`;
    case "invalid_key":
      return `must have ${issue.issues[0].message}`;
    case "invalid_union":
      if (byType(issue) || issue.message !== UNWORDED) return issue.message; // it lists the shapes
      return `must be ${either(issue.errors.map(([first]) => choice(first)))}`;
    default:
      return `is wrong (${issue.message})`;
  }
}

/** What one member of a union would have been. */
function choice(issue: Issue): string {
  return issue.path.length === 0 ? demand(issue).replace("must be ", "") : `a list in which each ${demand(issue)}`;
}

function either(choices: readonly string[]): string {
  const all = [...new Set(choices)];
  return all.length === 1 ? all[0] : `${all.slice(0, -1).join(", ")} or ${all.at(-1)}`;
}

function shown(input: unknown): string {
  const text = JSON.stringify(input);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
