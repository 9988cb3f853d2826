// Hugging Face's tokenizer.json for byte-level BPE: the file's schema, the CLIP flavour that this project writes, and
// the text pipeline (normaliser, pre-tokeniser) such a file describes. No encoding here; see tokenizer.ts.

import { z } from "zod";
import { BYTE_CHARACTERS, toByteCharacters } from "./byte_alphabet.ts";

export const START = "<|startoftext|>";
export const END = "<|endoftext|>";
export const END_OF_WORD = "</w>";
/** CLIP's first 512 tokens: bytes, and bytes that end a word. */
export const BYTE_TOKENS: readonly string[] = [...BYTE_CHARACTERS, ...BYTE_CHARACTERS.map((c) => c + END_OF_WORD)];

/** CLIP's word pattern (Radford et al. 2021, simple_tokenizer): contractions, letter runs, single digits, the rest. */
const CLIP_WORDS = String.raw`<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`;
/** The pattern that the ByteLevel stage applies itself unless `use_regex` is false (Radford et al. 2019, GPT-2). */
const GPT2_WORDS = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

const stage = z.looseObject({ type: z.string() });
const pattern = z.union([z.object({ Regex: z.string() }), z.object({ String: z.string() })]);
const model = z.looseObject({
  vocab: z.record(z.string(), z.int().nonnegative()),
  merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])),
  unk_token: z.string().nullish(),
  end_of_word_suffix: z.string().nullish(),
  continuing_subword_prefix: z.literal("").nullish(),
  byte_fallback: z.literal(false).nullish(),
  ignore_merges: z.boolean().nullish(),
});
const addedToken = z.looseObject({
  id: z.int(),
  content: z.string(),
  normalized: z.boolean().optional(),
  special: z.boolean().optional(),
});
const file = z.looseObject({
  added_tokens: z.array(addedToken).optional(),
  normalizer: stage.nullish(),
  pre_tokenizer: stage.nullish(),
  post_processor: stage.nullish(),
  model,
});

export type TokenizerFile = z.infer<typeof file>;
type Stage = z.infer<typeof stage>;
type Pattern = z.infer<typeof pattern>;

/** Checks a parsed tokenizer.json. Throws Error naming `where` and the first thing that is not byte-level BPE. */
export function checkTokenizerFile(json: unknown, where: string): TokenizerFile {
  const type = (json as { model?: { type?: unknown } } | null)?.model?.type ?? "BPE";
  if (type !== "BPE")
    throw new Error(`${where}: the model is ${String(type)}; only byte-level BPE (CLIP, GPT-2) can be read`);
  const result = file.safeParse(json);
  if (!result.success)
    throw new Error(`${where} is not a byte-level BPE tokenizer.json:\n${z.prettifyError(result.error)}`);
  return json as TokenizerFile; // as read, so that saving it again changes nothing
}

/** A tokenizer.json with CLIP's conventions around any CLIP-style vocabulary and merge list. */
export function clipFile(
  vocab: Readonly<Record<string, number>>,
  merges: readonly (readonly [string, string])[],
): TokenizerFile {
  const special = (content: string) => ({
    id: vocab[content],
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [special(START), special(END)],
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "NFC" },
        { type: "Replace", pattern: { Regex: String.raw`\s+` }, content: " " },
        { type: "Lowercase" },
      ],
    },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: CLIP_WORDS }, behavior: "Removed", invert: true },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: {
      type: "RobertaProcessing",
      sep: [END, vocab[END]],
      cls: [START, vocab[START]],
      trim_offsets: false,
      add_prefix_space: false,
    },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: END,
      continuing_subword_prefix: "",
      end_of_word_suffix: END_OF_WORD,
      fuse_unk: false,
      byte_fallback: false,
      vocab: { ...vocab },
      merges: merges.map(([left, right]): [string, string] => [left, right]),
    },
  };
}

/** Text -> text before it is cut into words. Throws Error for a normaliser this project does not have. */
export function compileNormalizer(normalizer: Stage | null | undefined): (text: string) => string {
  const steps = flatten(normalizer, "normalizers").map(normalizerStep);
  return (text) => steps.reduce((t, step) => step(t), text);
}

/** Text -> words in byte characters. Throws Error for a pre-tokeniser this project does not have. */
export function compilePreTokenizer(preTokenizer: Stage | null | undefined): (text: string) => string[] {
  const stages = flatten(preTokenizer, "pretokenizers");
  if (!stages.some(({ type }) => type === "ByteLevel")) {
    throw new Error("the pre-tokenizer has no ByteLevel stage; only byte-level BPE can be read");
  }
  const steps = stages.map(preTokenizerStep);
  return (text) => steps.reduce((words, step) => words.flatMap(step), [text]).filter((word) => word !== "");
}

/** Start and end token ids that the post-processor adds (RobertaProcessing, TemplateProcessing), if it does. */
export function sequenceMarks(postProcessor: Stage | null | undefined): { start?: string; end?: string } {
  for (const { type, cls, sep, single } of flatten(postProcessor, "processors")) {
    if (type === "RobertaProcessing" || type === "BertProcessing") {
      const first = z.tuple([z.string(), z.int()]);
      return { start: first.parse(cls)[0], end: first.parse(sep)[0] };
    }
    if (type === "TemplateProcessing") {
      const marks = z
        .array(z.looseObject({ SpecialToken: z.looseObject({ id: z.string() }).optional() }))
        .parse(single);
      return { start: marks.at(0)?.SpecialToken?.id, end: marks.at(-1)?.SpecialToken?.id };
    }
  }
  return {};
}

/** The stages of a possibly nested Sequence in order; `children` is the key it keeps them under. */
function flatten(node: Stage | null | undefined, children: string): Stage[] {
  if (!node) return [];
  if (node.type !== "Sequence") return [node];
  return z
    .array(stage)
    .parse(node[children])
    .flatMap((child) => flatten(child, children));
}

function normalizerStep(node: Stage): (text: string) => string {
  switch (node.type) {
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD": {
      const form = node.type;
      return (text) => text.normalize(form);
    }
    case "Lowercase":
      return (text) => text.toLowerCase();
    case "Replace": {
      const { content, ...rest } = z.object({ pattern, content: z.string() }).parse(node);
      const regex = compilePattern(rest.pattern);
      return (text) => text.replaceAll(regex, () => content);
    }
    default:
      throw new Error(`the normalizer "${node.type}" is not supported (NFC, NFD, NFKC, NFKD, Lowercase, Replace are)`);
  }
}

function preTokenizerStep(node: Stage): (text: string) => string[] {
  if (node.type === "ByteLevel") return byteLevel(node);
  if (node.type === "Split") return split(node);
  throw new Error(`the pre-tokenizer "${node.type}" is not supported (Split and ByteLevel are)`);
}

function byteLevel(node: Stage): (text: string) => string[] {
  const words = compilePattern({ Regex: GPT2_WORDS });
  return (text) => {
    const whole = node.add_prefix_space === true && !text.startsWith(" ") ? ` ${text}` : text;
    return (node.use_regex === false ? [whole] : (whole.match(words) ?? [])).map(toByteCharacters);
  };
}

function split(node: Stage): (text: string) => string[] {
  const {
    behavior,
    invert = false,
    ...rest
  } = z.object({ pattern, behavior: z.enum(["Removed", "Isolated"]), invert: z.boolean().optional() }).parse(node);
  const regex = compilePattern(rest.pattern);
  if (behavior === "Isolated") return (text) => isolate(text, regex);
  return invert ? (text) => text.match(regex) ?? [] : (text) => text.split(regex);
}

/** Matches and what lies between them, in order. */
function isolate(text: string, regex: RegExp): string[] {
  const parts: string[] = [];
  let end = 0;
  for (const match of text.matchAll(regex)) {
    parts.push(text.slice(end, match.index), match[0]);
    end = match.index + match[0].length;
  }
  return [...parts, text.slice(end)];
}

/** Files hold Oniguruma patterns, where \s is Unicode white space; JavaScript's \s differs (U+FEFF, U+0085). */
function compilePattern(source: Pattern): RegExp {
  if ("String" in source) return new RegExp(source.String.replace(/[$()*+.?[\\\]^{|}]/g, "\\$&"), "gu");
  const translated = source.Regex.replace(/\\([sS])/g, (_, s) => (s === "s" ? "\\p{White_Space}" : "\\P{White_Space}"));
  try {
    return new RegExp(translated, "gu");
  } catch (error) {
    throw new Error(`the pattern ${source.Regex} cannot be used here: ${(error as Error).message}`, { cause: error });
  }
}
