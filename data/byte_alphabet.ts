// GPT-2's reversible map between bytes and printable characters, which lets byte-level BPE vocabularies be text.
// Printable Latin-1 bytes stand for themselves; the other 68 are shifted to U+0100 and up, in byte order.

const printable = [...range(0x21, 0x7e), ...range(0xa1, 0xac), ...range(0xae, 0xff)];
const hidden = range(0, 0xff).filter((byte) => !printable.includes(byte));

/** The 256 characters in the order in which CLIP numbers them: printable bytes first. */
export const BYTE_CHARACTERS: readonly string[] = [
  ...printable.map((byte) => String.fromCharCode(byte)),
  ...hidden.map((_, i) => String.fromCharCode(0x100 + i)),
];

const characterOf = new Map([...printable, ...hidden].map((byte, i) => [byte, BYTE_CHARACTERS[i]]));
const byteOf = new Map([...characterOf].map(([byte, character]) => [character, byte]));

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

/** UTF-8 bytes of `text`, one character each. */
export function toByteCharacters(text: string): string {
  return Array.from(new TextEncoder().encode(text), (byte) => characterOf.get(byte)!).join("");
}

/** The bytes behind `characters`; one outside the alphabet (from an added token) stands for its own UTF-8. */
export function fromByteCharacters(characters: string): number[] {
  return [...characters].flatMap((character) => byteOf.get(character) ?? [...new TextEncoder().encode(character)]);
}
