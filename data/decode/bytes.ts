// A cursor over a file that reports running off the end as "truncated". Used by the GIF and APNG parsers.

export class ByteReader {
  readonly bytes: Uint8Array;
  at = 0;
  private readonly view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Moves past `count` bytes and returns where they started; throws if the file is shorter. */
  skip(count: number): number {
    const start = this.at;
    if (start + count > this.bytes.length) throw new Error(`the file is truncated at byte ${this.bytes.length}`);
    this.at += count;
    return start;
  }

  /** The next `count` bytes, as a view. */
  take(count: number): Uint8Array {
    const start = this.skip(count);
    return this.bytes.subarray(start, start + count);
  }

  u8(): number {
    return this.bytes[this.skip(1)];
  }

  u16le(): number {
    return this.view.getUint16(this.skip(2), true);
  }

  u16be(): number {
    return this.view.getUint16(this.skip(2));
  }

  u32be(): number {
    return this.view.getUint32(this.skip(4));
  }
}
