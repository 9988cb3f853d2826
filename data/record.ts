// One line of a sticker folder's `metadata.jsonl` (Hugging Face "imagefolder" style): its schema, and the parser that
// says what is wrong with a line and where. Reading folders and files is elsewhere. Called by readers of DATA folders
// and by data/starter/write.ts.

import * as z from "zod";

export const DOMAINS = ["Cartoon", "Real"] as const;
export type Domain = (typeof DOMAINS)[number];
/** Of records that name none. */
export const [DEFAULT_DOMAIN] = DOMAINS;

/**
 * JSON has no undefined: writers put null where a column has no value for this row, or an empty text where every row must have
 * a value of one type (curate/export/rows.ts).
 */
function orNull<T extends z.ZodType>(schema: T) {
  return z.preprocess((given) => (given === "" ? null : given), schema.nullish());
}

const domain = z.string().transform((given, context): Domain => {
  const known = DOMAINS.find((name) => name.toLowerCase() === given.trim().toLowerCase());
  if (known) return known;
  context.addIssue({ code: "custom", message: `expected "Cartoon" or "Real", got "${given}"` });
  return z.NEVER;
});

const fileName = z
  .string()
  .min(1, "must not be empty")
  .refine((name) => !/^([/\\]|[A-Za-z]:)/.test(name) && !name.split(/[/\\]/).includes(".."), {
    message: 'must be a path inside the folder, without ".."',
  });

/** Only `file_name` and `caption` must be there; fields not listed are kept as they are. */
const stickerRecord = z.looseObject({
  file_name: fileName,
  /** The description only; a model reads it as "<domain> \t <caption>". */
  caption: z.string().trim().min(1, "must not be empty"),
  domain: orNull(domain),
  caption_zh: orNull(z.string()),
  subject: orNull(z.string()),
  action: orNull(z.string()),
  /** Words drawn on the sticker. */
  text: orNull(z.string()),
  text_lang: orNull(z.string()),
  trigger_words: orNull(z.array(z.string())),
  license: orNull(z.string()),
  attribution: orNull(z.string()),
  frames: orNull(z.int().positive()),
  delay_ms: orNull(z.number().nonnegative()),
  width: orNull(z.int().positive()),
  height: orNull(z.int().positive()),
  /** What a procedural sticker can be drawn from again. */
  recipe: orNull(z.record(z.string(), z.unknown())),
});

export type StickerRecord = z.output<typeof stickerRecord>;

/**
 * Parses one line. `where` is how messages call it, such as "stickers/metadata.jsonl line 12".
 * Throws Error with one line that names every field at fault.
 */
export function parseRecord(line: string, where: string): StickerRecord {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new Error(`${where}: not JSON (${(error as Error).message}); each line must hold one JSON object`);
  }
  const parsed = stickerRecord.safeParse(value);
  if (parsed.success) return parsed.data;
  const faults = parsed.error.issues.map(({ path, message }) =>
    path.length ? `${path.join(".")}: ${message}` : message,
  );
  throw new Error(`${where}: ${faults.join("; ")}. A record needs "file_name" and "caption" as strings`);
}
