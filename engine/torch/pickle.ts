// Python's pickle, protocols 0 to 5, as data: a stack machine over bytes that builds plain values and runs nothing. What
// a global name means, and what calling it gives, is asked of a `World`; one that a world does not know ends the reading.
// Memory and time are linear in the bytes. Knows no torch, no file and no Node.

export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | readonly Value[]
  | ReadonlySet<Value>
  | ReadonlyMap<Value, Value>
  | Tuple
  | Global
  | Thing;

/** Unlike a list it is made whole. */
export class Tuple {
  readonly items: readonly Value[];
  constructor(items: readonly Value[]) {
    this.items = items;
  }
}

/** A class or function by its full name: a name and nothing more. */
export class Global {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}

/** Base of the values that a world makes. */
export abstract class Thing {
  abstract readonly kind: string;
}

/** What names in the pickle stand for. Each throws to refuse. */
export interface World {
  /** "module.name" */
  global(name: string): Value;
  call(callee: Global, args: readonly Value[]): Value;
  /** State that is set on an object after it was made. */
  build(object: Value, state: Value): void;
  /** An object that lies outside the pickle. */
  persistent(id: Value): Value;
}

/** Thrown when the pickle goes on behind the bytes: with more of the file, it could be complete. */
export class PickleEnd extends Error {
  override name = "PickleEnd";
}

/** A damaged pickle. The message does not name the file: the caller knows it. */
export class PickleError extends Error {
  override name = "PickleError";
}

/** The value of the pickle that begins at `start`, and where it ends. */
export function unpickle(bytes: Uint8Array, start: number, world: World): { value: Value; end: number } {
  const machine = new Machine(bytes, start, world);
  while (!machine.stopped) {
    const code = machine.u8();
    const run = OPCODES.get(code);
    if (!run) throw new PickleError(`unknown opcode 0x${code.toString(16).padStart(2, "0")} at byte ${machine.at - 1}`);
    run(machine);
  }
  return { value: machine.pop(), end: machine.at };
}

const HIGHEST_PROTOCOL = 5;
const LONGEST_NUMBER = 1024; // bytes, or digits: more than any checkpoint has, and quick to convert

class Machine {
  at: number;
  stopped = false;
  readonly world: World;
  readonly memo = new Map<number, Value>();
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #stack: Value[] = [];
  readonly #marks: number[] = [];
  #spent = 0;

  constructor(bytes: Uint8Array, start: number, world: World) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = start;
    this.world = world;
  }

  stop(): void {
    this.stopped = true;
  }

  // ---- bytes

  /** Where the next `n` bytes begin. */
  skip(n: number): number {
    const begin = this.at;
    if (begin + n > this.#bytes.length) throw new PickleEnd(`${n} bytes are missing behind byte ${this.#bytes.length}`);
    this.at += n;
    return begin;
  }
  u8(): number {
    return this.#bytes[this.skip(1)];
  }
  u16(): number {
    return this.#view.getUint16(this.skip(2), true);
  }
  u32(): number {
    return this.#view.getUint32(this.skip(4), true);
  }
  i32(): number {
    return this.#view.getInt32(this.skip(4), true);
  }
  u64(): number {
    return Number(this.#view.getBigUint64(this.skip(8), true));
  }
  f64(): number {
    return this.#view.getFloat64(this.skip(8), false);
  }
  bytes(n: number): Uint8Array {
    const begin = this.skip(n);
    return this.#bytes.subarray(begin, begin + n);
  }
  text(n: number): string {
    return new TextDecoder().decode(this.bytes(n));
  }
  line(): string {
    const end = this.#bytes.indexOf(10, this.at);
    if (end < 0) throw new PickleEnd(`a line does not end before byte ${this.#bytes.length}`);
    const line = this.text(end - this.at);
    this.at = end + 1;
    return line;
  }

  // ---- stack

  push(value: Value): void {
    this.#stack.push(value);
  }
  pop(): Value {
    if (this.#stack.length <= (this.#marks.at(-1) ?? 0)) throw this.error("nothing is on the stack");
    return this.#stack.pop() as Value;
  }
  top(): Value {
    const value = this.pop();
    this.push(value);
    return value;
  }
  mark(): void {
    this.#marks.push(this.#stack.length);
  }
  popMark(): Value[] {
    const mark = this.#marks.pop();
    if (mark === undefined) throw this.error("there is no mark on the stack");
    return this.#stack.splice(mark);
  }

  // ---- objects

  tuple(n: number): void {
    const items = Array.from({ length: n }, () => this.pop());
    this.push(new Tuple(items.reverse()));
  }
  remember(index: number): void {
    this.memo.set(index, this.top());
  }
  recall(index: number): void {
    const value = this.memo.get(index);
    if (value === undefined) throw this.error(`value ${index} is used before it is made`);
    this.push(value);
  }
  append(values: readonly Value[]): void {
    const list = this.top();
    if (!Array.isArray(list)) throw this.error("elements are appended to what is no list");
    for (const value of values) list.push(value);
  }
  set(pairs: readonly Value[]): void {
    const dict = this.top();
    if (!(dict instanceof Map) || pairs.length % 2 !== 0) throw this.error("items are set on what is no dictionary");
    for (let i = 0; i < pairs.length; i += 2) dict.set(pairs[i], pairs[i + 1]);
  }
  addAll(values: readonly Value[]): void {
    const set = this.top();
    if (!(set instanceof Set)) throw this.error("elements are added to what is no set");
    for (const value of values) set.add(value);
  }
  global(module: Value, name: Value): void {
    if (typeof module !== "string" || typeof name !== "string") throw this.error("a global's name is no text");
    this.push(this.world.global(`${module}.${name}`));
  }
  call(callee: Value, args: Value): void {
    if (!(callee instanceof Global)) throw this.error("something is called that is no global");
    if (!(args instanceof Tuple)) throw this.error(`${callee.name} is called with what is no tuple`);
    for (const arg of args.items)
      this.#spend(arg instanceof Tuple ? arg.items.length : Array.isArray(arg) ? arg.length : 0);
    this.push(this.world.call(callee, args.items));
  }

  /** Calls may copy their arguments, which three bytes can name again and again: all copies together stay below the bytes. */
  #spend(elements: number): void {
    this.#spent += elements;
    if (this.#spent > this.#bytes.length) throw this.error("more is copied than the pickle holds");
  }

  error(what: string): PickleError {
    return new PickleError(`${what} (at byte ${this.at - 1})`);
  }
}

/** Little-endian two's complement. A number where that is exact. */
function long(bytes: Uint8Array): number | bigint {
  if (bytes.length > LONGEST_NUMBER) throw new PickleError(`a whole number of ${bytes.length} bytes`);
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]);
  return exact(BigInt.asIntN(8 * bytes.length, value));
}

function decimal(text: string): number | bigint {
  const digits = text.replace(/L$/, "");
  if (!/^-?\d+$/.test(digits) || digits.length > LONGEST_NUMBER) throw new PickleError("a damaged whole number");
  return exact(BigInt(digits));
}

function exact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** Index of a text memo operation. */
function index(text: string): number {
  const value = decimal(text);
  return typeof value === "number" ? value : -1;
}

const unquoted = (text: string): string => text.replace(/^(['"])(.*)\1$/s, "$2");
const unescaped = (text: string): string =>
  text.replace(/\\u([0-9a-fA-F]{4})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));

function dictionary(m: Machine, items: readonly Value[]): void {
  m.push(new Map());
  m.set(items);
}

function instance(m: Machine, [callee, ...args]: readonly Value[]): void {
  m.call(callee, new Tuple(args));
}

const swap = (m: Machine, act: (last: Value) => void): void => act(m.pop());

/** Opcode -> what it does. Names and meanings: pickletools in Python's library. */
const OPCODES: ReadonlyMap<number, (m: Machine) => void> = new Map<number, (m: Machine) => void>([
  // protocol and framing
  [0x80, (m) => checkProtocol(m.u8())], // PROTO
  [0x95, (m) => void m.skip(8)], // FRAME
  [code("."), (m) => m.stop()], // STOP
  // the stack
  [code("("), (m) => m.mark()], // MARK
  [code("0"), (m) => void m.pop()], // POP
  [code("1"), (m) => void m.popMark()], // POP_MARK
  [code("2"), (m) => m.push(m.top())], // DUP
  // constants
  [code("N"), (m) => m.push(null)], // NONE
  [0x88, (m) => m.push(true)], // NEWTRUE
  [0x89, (m) => m.push(false)], // NEWFALSE
  // numbers
  [code("I"), (m) => swapLine(m, (t) => (t === "01" ? true : t === "00" ? false : decimal(t)))], // INT
  [code("L"), (m) => swapLine(m, decimal)], // LONG
  [code("F"), (m) => swapLine(m, Number)], // FLOAT
  [code("J"), (m) => m.push(m.i32())], // BININT
  [code("K"), (m) => m.push(m.u8())], // BININT1
  [code("M"), (m) => m.push(m.u16())], // BININT2
  [0x8a, (m) => m.push(long(m.bytes(m.u8())))], // LONG1
  [0x8b, (m) => m.push(long(m.bytes(m.u32())))], // LONG4
  [code("G"), (m) => m.push(m.f64())], // BINFLOAT
  // text and bytes
  [code("S"), (m) => swapLine(m, unquoted)], // STRING
  [code("V"), (m) => swapLine(m, unescaped)], // UNICODE
  [code("T"), (m) => m.push(m.text(m.u32()))], // BINSTRING
  [code("U"), (m) => m.push(m.text(m.u8()))], // SHORT_BINSTRING
  [code("X"), (m) => m.push(m.text(m.u32()))], // BINUNICODE
  [0x8c, (m) => m.push(m.text(m.u8()))], // SHORT_BINUNICODE
  [0x8d, (m) => m.push(m.text(m.u64()))], // BINUNICODE8
  [code("B"), (m) => m.push(m.bytes(m.u32()))], // BINBYTES
  [code("C"), (m) => m.push(m.bytes(m.u8()))], // SHORT_BINBYTES
  [0x8e, (m) => m.push(m.bytes(m.u64()))], // BINBYTES8
  [0x96, (m) => m.push(m.bytes(m.u64()))], // BYTEARRAY8
  // containers
  [code("]"), (m) => m.push([])], // EMPTY_LIST
  [code("l"), (m) => m.push(m.popMark())], // LIST
  [code("a"), (m) => swap(m, (value) => m.append([value]))], // APPEND
  [code("e"), (m) => m.append(m.popMark())], // APPENDS
  [code("}"), (m) => m.push(new Map())], // EMPTY_DICT
  [code("d"), (m) => dictionary(m, m.popMark())], // DICT
  [code("s"), (m) => swap(m, (value) => swap(m, (key) => m.set([key, value])))], // SETITEM
  [code("u"), (m) => m.set(m.popMark())], // SETITEMS
  [0x8f, (m) => m.push(new Set())], // EMPTY_SET
  [0x90, (m) => m.addAll(m.popMark())], // ADDITEMS
  [0x91, (m) => m.push(new Set(m.popMark()))], // FROZENSET
  [code(")"), (m) => m.tuple(0)], // EMPTY_TUPLE
  [code("t"), (m) => m.push(new Tuple(m.popMark()))], // TUPLE
  [0x85, (m) => m.tuple(1)],
  [0x86, (m) => m.tuple(2)],
  [0x87, (m) => m.tuple(3)],
  // the memo
  [code("p"), (m) => m.remember(index(m.line()))], // PUT
  [code("q"), (m) => m.remember(m.u8())], // BINPUT
  [code("r"), (m) => m.remember(m.u32())], // LONG_BINPUT
  [0x94, (m) => m.remember(m.memo.size)], // MEMOIZE
  [code("g"), (m) => m.recall(index(m.line()))], // GET
  [code("h"), (m) => m.recall(m.u8())], // BINGET
  [code("j"), (m) => m.recall(m.u32())], // LONG_BINGET
  // names and objects
  [code("c"), (m) => m.global(m.line(), m.line())], // GLOBAL
  [0x93, (m) => swap(m, (name) => swap(m, (module) => m.global(module, name)))], // STACK_GLOBAL
  [code("R"), (m) => swap(m, (args) => swap(m, (callee) => m.call(callee, args)))], // REDUCE
  [0x81, (m) => swap(m, (args) => swap(m, (type) => m.call(type, args)))], // NEWOBJ
  [0x92, (m) => swap(m, (named) => newObjectEx(m, named))], // NEWOBJ_EX
  [code("o"), (m) => instance(m, m.popMark())], // OBJ
  [code("i"), (m) => inst(m)], // INST
  [code("b"), (m) => swap(m, (state) => m.world.build(m.top(), state))], // BUILD
  [code("Q"), (m) => swap(m, (id) => m.push(m.world.persistent(id)))], // BINPERSID
  [code("P"), (m) => m.push(m.world.persistent(m.line()))], // PERSID
]);

function code(character: string): number {
  return character.charCodeAt(0);
}

function swapLine(m: Machine, value: (line: string) => Value): void {
  m.push(value(m.line()));
}

function checkProtocol(version: number): void {
  if (version > HIGHEST_PROTOCOL)
    throw new PickleError(`pickle protocol ${version}; at most ${HIGHEST_PROTOCOL} is read`);
}

function newObjectEx(m: Machine, named: Value): void {
  if (!(named instanceof Map) || named.size > 0) throw m.error("an object is made with named arguments");
  swap(m, (args) => swap(m, (type) => m.call(type, args)));
}

function inst(m: Machine): void {
  m.global(m.line(), m.line());
  const callee = m.pop();
  m.call(callee, new Tuple(m.popMark()));
}
