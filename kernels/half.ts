// Operands in 16-bit floats for any kernel: its text is written for 32 bits, and what it loads from such a binding is widened
// where it is loaded, what it stores narrowed where it is stored. The arithmetic stays f32. Called by engine/plan/emit/.

import { rewriteAccesses } from "./access.ts";

/**
 * The text with storage binding `binding` declared as f16. A binding that is f16 already stays. Throws when it is no array
 * of 32-bit elements.
 */
export function withHalves(text: string, binding: number): string {
  const declared = new RegExp(`(@binding\\(${binding}\\) var<storage, \\w+> (\\w+): array<)(vec4<)?(\\w+)>`);
  const match = declared.exec(text);
  if (match?.[4] === "f16") return text;
  if (!match || !["f32", "u32"].includes(match[4]))
    throw new Error(`binding ${binding} is no array of 32-bit elements`);
  const [, , name, open, element] = match; // "u32" in kernels that move elements of any type by their bits
  const vector = open !== undefined;
  return rewriteAccesses(text.replace(declared, `$1${open ?? ""}f16>`), name, {
    load: (index) => widened(`${name}[${index}]`, vector, element),
    store: (index, component, value) => {
      const place = component === null ? `${name}[${index}]` : `${name}[${index}][${component}]`;
      return `${place} = ${narrowed(value, vector && component === null, element)}`;
    },
  });
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
