// Method tables: a JSON-RPC API is a record of methods with schemas for both directions, checked at both ends.
import type { z } from "zod";

export interface MethodDefinition<P extends z.ZodType = z.ZodType, R extends z.ZodType = z.ZodType> {
  readonly params: P;
  readonly result: R;
}
export type ApiDefinition = Readonly<Record<string, MethodDefinition>>;
export type NotificationTable = Readonly<Record<string, z.ZodType>>;

export const method = <P extends z.ZodType, R extends z.ZodType>(params: P, result: R): MethodDefinition<P, R> => ({
  params,
  result,
});

export type ParamsOf<A extends ApiDefinition, M extends keyof A> = z.infer<A[M]["params"]>;
export type ResultOf<A extends ApiDefinition, M extends keyof A> = z.infer<A[M]["result"]>;
