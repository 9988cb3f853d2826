// The variable-width LZW of GIF (GIF89a specification, appendix F): codes of up to 12 bits, least significant bit
// first, a clear code, and a table that stays as it is once full. Decoding only; ../encode uses gifenc.

const MAX_BITS = 12;
const MAX_CODES = 1 << MAX_BITS;

/** Strings as chains: entry = string of `prefix` + `suffix`; `first` and `length` save walking the chain. */
interface Table {
  readonly prefix: Uint16Array;
  readonly suffix: Uint8Array;
  readonly first: Uint8Array;
  readonly length: Uint16Array;
}

function literalTable(literals: number): Table {
  const bytes = Uint8Array.from({ length: MAX_CODES }, (_, i) => (i < literals ? i : 0));
  const length = new Uint16Array(MAX_CODES).fill(1, 0, literals);
  return { prefix: new Uint16Array(MAX_CODES), suffix: bytes, first: bytes.slice(), length };
}

/**
 * Decodes `data` into `out` until it is full, the end code or the end of the data.
 * @returns how many bytes of `out` were written
 * @throws Error on a code that is not in the table yet
 */
export function decodeLzw(data: Uint8Array, literalBits: number, out: Uint8Array): number {
  const clearCode = 1 << literalBits;
  const table = literalTable(clearCode);
  let next = clearCode + 2;
  let bits = literalBits + 1;
  let previous = -1;
  let written = 0;
  let held = 0; // bits read but not used, and how many they are
  let heldBits = 0;
  for (const byte of data) {
    held |= byte << heldBits;
    heldBits += 8;
    while (heldBits >= bits) {
      const code = held & ((1 << bits) - 1);
      held >>>= bits;
      heldBits -= bits;
      if (code === clearCode + 1 || written >= out.length) return written;
      if (code === clearCode) {
        next = clearCode + 2;
        bits = literalBits + 1;
        previous = -1;
        continue;
      }
      if (
        code > next ||
        (code === next && (previous < 0 || next === MAX_CODES)) ||
        (previous < 0 && code > clearCode)
      ) {
        throw new Error(`the LZW data is corrupt (code ${code}, table of ${next})`);
      }
      if (previous >= 0 && next < MAX_CODES) {
        // The one code that may name the entry being made is the string whose first byte it needs: use `previous`.
        addEntry(table, next, previous, table.first[code < next ? code : previous]);
        if (++next === 1 << bits && bits < MAX_BITS) bits++;
      }
      written = emit(table, code, out, written);
      previous = code;
    }
  }
  return written;
}

function addEntry({ prefix, suffix, first, length }: Table, at: number, previous: number, last: number): void {
  prefix[at] = previous;
  suffix[at] = last;
  first[at] = first[previous];
  length[at] = length[previous] + 1;
}

/** Writes the string of `code` back to front and returns the new end; what does not fit is dropped. */
function emit({ prefix, suffix, length }: Table, code: number, out: Uint8Array, at: number): number {
  const end = at + length[code];
  for (let i = end - 1, entry = code; i >= at; i--, entry = prefix[entry]) {
    if (i < out.length) out[i] = suffix[entry];
  }
  return Math.min(end, out.length);
}
