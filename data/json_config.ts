// What is wrong with a configuration, in words for who wrote it: the key, what it may be and what it is. Called by config.ts.

import * as z from "zod";

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

/** One fault in one line, e.g. `filter.maxAspect must be a number, not "wide"`. Parse with `reportInput`. */
export function faultText(issue: z.core.$ZodIssue): string {
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
function byType(issue: z.core.$ZodIssue): boolean {
  return issue.code === "invalid_union" && issue.errors.length === 0;
}

/** "must be ...". */
function demand(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_type":
      return `must be ${KINDS[issue.expected] ?? issue.expected}`;
    case "invalid_value":
      return `must be ${either(issue.values.map((value) => JSON.stringify(value)))}`;
    case "too_small":
      if (issue.origin === "string") return "must not be empty";
      return issue.inclusive === false ? `must be above ${issue.minimum}` : `must be at least ${issue.minimum}`;
    case "too_big":
      return `must be at most ${issue.maximum}`;
    case "invalid_format":
      return issue.format === "includes"
        ? `must contain ${(issue as { includes?: string }).includes}`
        : "must be an address like http://localhost:11434/v1";
    case "invalid_union":
      if (byType(issue)) return issue.message; // it lists the types
      return `must be ${either(issue.errors.map(([first]) => choice(first)))}`;
    default:
      return `is wrong (${issue.message})`;
  }
}

/** What one member of a union would have been. */
function choice(issue: z.core.$ZodIssue): string {
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
