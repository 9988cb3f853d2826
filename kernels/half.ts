// Operands in 16-bit floats for any kernel: its text is written for 32 bits, and what it loads from such a binding is widened
// where it is loaded, what it stores narrowed where it is stored. The arithmetic stays f32. Called by engine/plan/emit/.

/**
 * The text with storage binding `binding` declared as f16. Loads are `name[...]`, stores `name[...] = ...;`, which is all
 * that kernels do with operands. A binding that is f16 already stays. Throws when it is no array of 32-bit elements.
 */
export function withHalves(text: string, binding: number): string {
  const declared = new RegExp(`(@binding\\(${binding}\\) var<storage, \\w+> (\\w+): array<)(vec4<)?(\\w+)>`);
  const match = declared.exec(text);
  if (match?.[4] === "f16") return text;
  if (!match || !["f32", "u32"].includes(match[4]))
    throw new Error(`binding ${binding} is no array of 32-bit elements`);
  const [, , name, vector, element] = match;
  return accessed(text.replace(declared, `$1${vector ?? ""}f16>`), { name, vector: vector !== undefined, element });
}

interface Operand {
  readonly name: string;
  readonly vector: boolean;
  /** "u32" for kernels that move elements of any type by their bits. */
  readonly element: string;
}

/** Every access to the operand with its conversion. */
function accessed(text: string, operand: Operand): string {
  const access = new RegExp(`(?<![\\w.])${operand.name}\\[`, "g");
  let out = "";
  let at = 0;
  for (let found = access.exec(text); found; found = access.exec(text)) {
    const open = found.index + operand.name.length;
    const end = closing(text, open);
    const component = operand.vector && text[end] === "[";
    const last = component ? closing(text, end) : end;
    const stores = /^\s*=(?!=)/.exec(text.slice(last));
    if (stores) {
      const from = last + stores[0].length;
      const semicolon = text.indexOf(";", from);
      const value = accessed(text.slice(from, semicolon).trim(), operand);
      out += `${text.slice(at, from)} ${narrowed(value, operand.vector && !component, operand.element)}`;
      at = semicolon;
    } else {
      const index = accessed(text.slice(open + 1, end - 1), operand);
      out += text.slice(at, found.index) + widened(`${operand.name}[${index}]`, operand.vector, operand.element);
      at = end;
    }
    access.lastIndex = at;
  }
  return out + text.slice(at);
}

const typed = (element: string, vector: boolean): string => (vector ? `vec4<${element}>` : element);

function widened(load: string, vector: boolean, element: string): string {
  const float = `${typed("f32", vector)}(${load})`;
  return element === "f32" ? float : `bitcast<${typed(element, vector)}>(${float})`;
}

function narrowed(value: string, vector: boolean, element: string): string {
  const float = element === "f32" ? value : `bitcast<${typed("f32", vector)}>(${value})`;
  return `${typed("f16", vector)}(${float})`;
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
