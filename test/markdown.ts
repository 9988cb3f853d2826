// What the tests of READMEs read from them. Used by readme.test.ts and package.test.ts.

/** The fenced blocks of one language, in order. */
export function fences(markdown: string, language: string): string[] {
  return Array.from(markdown.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm))
    .filter(([, name]) => name === language)
    .map(([, , text]) => text);
}
