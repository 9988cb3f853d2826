// Types of build.mjs, which is plain JavaScript because it runs before anything has been built.

export const dist: string;
export const entries: Readonly<Record<string, string>>;
export function stale(): boolean;
export function build(options?: { readonly sourcemap?: boolean }): Promise<void>;
