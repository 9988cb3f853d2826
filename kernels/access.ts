// Accesses to an operand in the text of any kernel, rewritten: loads are `name[...]`, stores `name[...] = ...;`, which is all
// that kernels do with operands. Knows neither why nor what for: half.ts changes element types with it, chain.ts widths.

/** What loads and stores become. `component`: of the vector at `index`, the one that is stored; null: all of it. */
export interface Access {
  load(index: string): string;
  /** A statement without its semicolon. */
  store(index: string, component: string | null, value: string): string;
}

/** `text` with every access to `name` as `access` writes it, those inside of indices and values too. */
export function rewriteAccesses(text: string, name: string, access: Access): string {
  const start = new RegExp(`(?<![\\w.])${name}\\[`, "g");
  let out = "";
  let at = 0;
  for (let found = start.exec(text); found; found = start.exec(text)) {
    const open = found.index + name.length;
    const end = closing(text, open);
    const last = text[end] === "[" ? closing(text, end) : end;
    const inner = (from: number, to: number): string => rewriteAccesses(text.slice(from, to).trim(), name, access);
    const index = inner(open + 1, end - 1);
    const equals = /^\s*=(?!=)/.exec(text.slice(last));
    out += text.slice(at, found.index);
    if (equals) {
      const semicolon = text.indexOf(";", last);
      const component = last > end ? inner(end + 1, last - 1) : null;
      out += access.store(index, component, inner(last + equals[0].length, semicolon));
      at = semicolon;
    } else {
      out += access.load(index);
      at = end;
    }
    start.lastIndex = at;
  }
  return out + text.slice(at);
}

/** Position behind the bracket that closes the one at `open`. */
function closing(text: string, open: number): number {
  let depth = 0;
  for (let i = open; i < text.length; i++) {
    if (text[i] === "[") depth++;
    else if (text[i] === "]" && --depth === 0) return i + 1;
  }
  throw new Error("a bracket is not closed");
}
