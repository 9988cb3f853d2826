// Types for the part of `upng-js` 2.1.0 that decode.test.ts and encode.test.ts use as an oracle; it ships none.

declare module "upng-js" {
  interface Image {
    readonly width: number;
    readonly height: number;
    readonly frames: readonly { readonly delay: number }[];
  }
  const UPNG: {
    decode(file: ArrayBuffer): Image;
    /** One RGBA buffer per composed frame. */
    toRGBA8(image: Image): ArrayBuffer[];
  };
  export default UPNG;
}
